package handler

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/source/customlog"
	"github.com/openloganalytics/agent/agent/transform"
	"github.com/openloganalytics/agent/internal/nearest"
)

// maxTransformations bounds those of one rule.
const maxTransformations = 50

// transformations reads what data sources can name in `transform`.
func (s *Settings) transformations(d *decoder, pub *object) {
	list := pub.objects("transformations")
	if len(list) > maxTransformations {
		d.wrong("transformations", fmt.Sprintf("has %d entries", len(list)), fmt.Sprintf("give at most %d", maxTransformations))
		return
	}
	s.pipelines = map[string]*transform.Pipeline{}
	for _, o := range list {
		spec := transform.Spec{Name: o.text("name"), Header: processor(o.object("headerProcessor"))}
		for _, step := range o.objects("processors") {
			spec.Processors = append(spec.Processors, processor(step))
		}
		o.done()
		pipeline, problems := transform.New(spec)
		for _, p := range problems {
			d.wrong(o.path+"."+p.Field, p.Problem, p.Fix)
		}
		_, taken := s.pipelines[spec.Name]
		switch {
		case spec.Name == "":
			d.wrong(o.path+".name", "is missing", "give a name, which data sources refer to")
		case taken:
			d.wrong(o.path+".name", fmt.Sprintf("%q is there twice", spec.Name), "give each transformation a name of its own")
		default:
			s.pipelines[spec.Name] = pipeline
			s.Config.Transformations = append(s.Config.Transformations, spec)
		}
	}
}

func processor(o *object) transform.Processor {
	if o == nil {
		return transform.Processor{}
	}
	defer o.done()
	return transform.Processor{Processor: o.text("processor"), Configuration: json.RawMessage(o.take("configuration"))}
}

// pipeline reads the transformation that a data source names; nil is none.
func (s *Settings) pipeline(d *decoder, src *object, header string) (string, *transform.Pipeline) {
	name := src.text("transform")
	if name == "" {
		return "", nil
	}
	p, known := s.pipelines[name]
	if !known {
		fix := "define it in transformations"
		if near, differs := nearest.Name(name, slices.Collect(maps.Keys(s.pipelines))); near != "" && differs <= len(name)/3 {
			fix = "did you mean " + near + "?"
		}
		d.wrong(src.path+".transform", fmt.Sprintf("%q is no transformation", name), fix)
	} else if p != nil && p.Header() != header {
		d.wrong(src.path+".transform", fmt.Sprintf("%q begins with %s", name, p.Header()), "name one that begins with "+header)
		p = nil
	}
	return name, p
}

// way reads where the records of a data source go: its standard streams, the
// first of can unless others are named; or with a transformation a custom one,
// which counts as the first.
func (s *Settings) way(d *decoder, src *object, header string, can ...string) (w agent.Way, feeds []string) {
	src.text("name")
	var p *transform.Pipeline
	w.Transform, p = s.pipeline(d, src, header)
	given := src.texts("streams")
	for _, name := range given {
		custom, is := strings.CutPrefix(name, "Custom-")
		switch {
		case slices.Contains(can, name):
			feeds = append(feeds, name)
		case !is || w.Transform == "":
			d.wrong(src.path+".streams", fmt.Sprintf("%q cannot be fed from here", name), "give \""+strings.Join(can, "\" or \"")+"\"")
		case slices.Contains(given, can[0]) || w.Table != "":
			d.wrong(src.path+".streams", fmt.Sprintf("has %d streams", len(given)), "give one; a second data source can feed another")
		default:
			w.Table = custom
			feeds = append(feeds, can[0])
			if _, err := customlog.Table(custom); err != nil {
				d.wrong(src.path+".streams", err.Error(), `give "Custom-<Name>_CL"; the rows land in the table <Name>_CL`)
			}
		}
	}
	if len(given) == 0 {
		feeds = can[:1]
	}
	if p == nil || w.Table != "" {
		return w, feeds
	}
	if !slices.Contains(feeds, can[0]) {
		d.wrong(src.path+".transform", fmt.Sprintf("%q has nothing to do: only what goes into %s is transformed", w.Transform, can[0]), "take it out, or add that stream")
	} else if err := p.Fits(); err != nil {
		d.wrong(src.path+".transform", fmt.Sprintf("%q does not go with %s: %v", w.Transform, can[0], err), `give the stream "Custom-<Name>_CL", or leave the columns as they are`)
	}
	return w, feeds
}

// redaction reads which secrets are taken out of texts; none by default.
func (s *Settings) redaction(d *decoder, pub *object) {
	kinds := pub.texts("redaction")
	if slices.Equal(kinds, []string{"*"}) {
		kinds = transform.RedactKinds()
	}
	if _, err := transform.NewRedactor(kinds); err != nil {
		d.wrong("redaction", err.Error(), `give a list such as ["keys", "tokens"], or ["*"] for all`)
		return
	}
	s.Config.Redaction = kinds
}
