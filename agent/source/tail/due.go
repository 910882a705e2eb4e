package tail

import (
	"container/heap"
	"time"
)

// dues holds the files that wait for their next look, the soonest first.
type dues []*file

// set makes at the time of f's next look.
func (d *dues) set(f *file, at time.Time) {
	f.due = at
	if f.place > 0 {
		heap.Fix(d, f.place-1)
	} else {
		heap.Push(d, f)
	}
}

// remove ends f's wait.
func (d *dues) remove(f *file) {
	if f.place > 0 {
		heap.Remove(d, f.place-1)
	}
}

// Len, Less, Swap, Push and Pop are for package heap.
func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].due.Before(d[j].due) }

func (d dues) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i+1, j+1
}

// Push appends x, a *file.
func (d *dues) Push(x any) {
	f := x.(*file)
	*d = append(*d, f)
	f.place = len(*d)
}

// Pop takes the last file off.
func (d *dues) Pop() any {
	last := len(*d) - 1
	f := (*d)[last]
	(*d)[last], *d = nil, (*d)[:last]
	f.place = 0
	return f
}
