package transform

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// filter keeps the rows that meet all conditions of any group.
type filter struct{ any [][]condition }

type condition struct {
	column   string
	operator string
	text     []byte // what a text is held against; lower case for contains
	number   float64
	numeric  bool
}

func (b *builder) filter(raw json.RawMessage) {
	var c struct {
		Any []struct {
			All []struct {
				ColumnName string `json:"columnName"`
				Operator   string `json:"operator"`
				Value      any    `json:"value"`
			} `json:"all"`
		} `json:"any"`
	}
	if !b.decode(raw, &c) {
		return
	}
	f := &filter{}
	if len(c.Any) == 0 {
		b.wrong("configuration.any", "is empty", "give at least one group of conditions")
	}
	for i, group := range c.Any {
		field := fmt.Sprintf("configuration.any[%d].all", i)
		if len(group.All) == 0 {
			b.wrong(field, "is empty", "give at least one condition")
		}
		var all []condition
		for j, given := range group.All {
			field := fmt.Sprintf("%s[%d]", field, j)
			if column, found := b.column(field+".columnName", given.ColumnName); found {
				all = append(all, b.condition(field, column, given.Operator, given.Value))
			}
		}
		f.any = append(f.any, all)
	}
	b.add(f)
}

func (b *builder) condition(field string, column columnType, operator string, value any) condition {
	c := condition{column: column.name, operator: operator}
	operators := []string{"==", "!=", "contains", "!contains"}
	switch v := value.(type) {
	case string:
		c.text = []byte(v)
		if strings.HasSuffix(operator, "contains") {
			c.text = bytes.ToLower(c.text)
		}
	case bool:
		operators = operators[:2]
		c.text = fmt.Append(nil, v)
	case json.Number:
		operators = []string{"==", "!=", ">", "<", ">=", "<="}
		n, err := v.Float64()
		if err != nil {
			b.wrong(field+".value", v.String()+" is too large", "give a number that a real can hold")
		}
		if !numeric(column.kind) {
			b.wrong(field+".value", fmt.Sprintf("is a number, and %s is of type %s", column.name, column.kind), "write it in quotes, or give the column a type by map.Rename first")
		}
		c.number, c.numeric = n, true
	default:
		b.wrong(field+".value", "is no text, number or boolean", "give the value to compare with")
	}
	if !slices.Contains(operators, operator) {
		b.wrong(field+".operator", fmt.Sprintf("%q is no operator for this value", operator), "give one of "+strings.Join(operators, " "))
	}
	return c
}

func (f *filter) apply(_ context.Context, r *row) bool {
	return slices.ContainsFunc(f.any, func(all []condition) bool {
		for i := range all {
			if !all[i].holds(r.get(all[i].column)) {
				return false
			}
		}
		return true
	})
}

func (c *condition) holds(value []byte) bool {
	if c.numeric {
		n, ok := number(value)
		switch c.operator {
		case "==":
			return ok && n == c.number
		case "!=":
			return !ok || n != c.number
		case ">":
			return ok && n > c.number
		case "<":
			return ok && n < c.number
		case ">=":
			return ok && n >= c.number
		}
		return ok && n <= c.number
	}
	said := text(value)
	switch c.operator {
	case "==":
		return value != nil && bytes.Equal(said, c.text)
	case "!=":
		return value == nil || !bytes.Equal(said, c.text)
	case "contains":
		return value != nil && bytes.Contains(bytes.ToLower(said), c.text)
	}
	return value == nil || !bytes.Contains(bytes.ToLower(said), c.text)
}

// rename gives columns other names and types.
type rename []renamed

type renamed struct{ from, to, kind string }

func (b *builder) rename(raw json.RawMessage) {
	var c struct {
		All []struct {
			ColumnName string `json:"columnName"`
			NameAs     string `json:"nameAs"`
			TypeAs     string `json:"typeAs"`
		} `json:"all"`
	}
	if !b.decode(raw, &c) {
		return
	}
	if len(c.All) == 0 {
		b.wrong("configuration.all", "is empty", "name at least one column")
	}
	var s rename
	for i, given := range c.All {
		field := fmt.Sprintf("configuration.all[%d]", i)
		from, found := b.column(field+".columnName", given.ColumnName)
		if !found || !b.kind(field+".typeAs", given.TypeAs) {
			continue
		}
		to := given.NameAs
		if to == "" || to == given.ColumnName {
			to = from.name
		} else if !b.fresh(field+".nameAs", to) {
			continue
		}
		if from.name == timeColumn && (to != timeColumn || given.TypeAs != "" && given.TypeAs != typeDatetime) {
			b.wrong(field, timeColumn+" has to stay what it is", "every row needs its time: take this out")
			continue
		}
		kind := from.kind
		if given.TypeAs != "" {
			kind = given.TypeAs
		}
		b.p.schema = slices.DeleteFunc(b.p.schema, func(c columnType) bool { return c.name == from.name })
		b.p.schema = append(b.p.schema, columnType{to, kind})
		s = append(s, renamed{from.name, to, given.TypeAs})
	}
	b.add(s)
}

func (s rename) apply(_ context.Context, r *row) bool {
	for _, c := range s {
		i := r.find(c.from)
		if i < 0 {
			continue
		}
		value := r.cast(r.columns[i].value, c.kind)
		if c.to != c.from {
			r.columns = slices.Delete(r.columns, i, i+1)
		}
		r.set(c.to, value)
	}
	return true
}

// drop takes columns out.
type drop []string

func (b *builder) drop(raw json.RawMessage) {
	var c struct {
		ColumnNames []string `json:"columnNames"`
	}
	if !b.decode(raw, &c) {
		return
	}
	if len(c.ColumnNames) == 0 {
		b.wrong("configuration.columnNames", "is empty", "name at least one column")
	}
	var s drop
	for i, name := range c.ColumnNames {
		field := fmt.Sprintf("configuration.columnNames[%d]", i)
		gone, found := b.column(field, name)
		if !found {
			continue
		}
		if gone.name == timeColumn {
			b.wrong(field, timeColumn+" cannot be dropped", "every row needs its time: take this out")
			continue
		}
		b.p.schema = slices.DeleteFunc(b.p.schema, func(c columnType) bool { return c.name == gone.name })
		s = append(s, gone.name)
	}
	b.add(s)
}

func (s drop) apply(_ context.Context, r *row) bool {
	r.columns = slices.DeleteFunc(r.columns, func(c column) bool { return slices.Contains(s, c.name) })
	return true
}
