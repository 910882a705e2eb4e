package agent

import "time"

// afterBacklog is how long after its last sign a backlog is over.
const afterBacklog = 3 * time.Second

// An effort knows whether there is a backlog, and tells. The start of the agent
// counts as one. It is for one goroutine at a time; nil knows nothing.
type effort struct {
	tell    func(backlog bool)
	backlog bool
	timer   *time.Timer
}

// newEffort returns the effort of an agent that starts now; nil when nobody
// wants to be told.
func newEffort(tell func(backlog bool)) *effort {
	if tell == nil {
		return nil
	}
	return &effort{tell: tell, backlog: true, timer: time.NewTimer(afterBacklog)}
}

// backlogged takes a sign of a backlog.
func (e *effort) backlogged() {
	if e == nil {
		return
	}
	e.timer.Reset(afterBacklog)
	if !e.backlog {
		e.backlog = true
		e.tell(true)
	}
}

// over returns what says that the backlog is over: then eased is to be called.
func (e *effort) over() <-chan time.Time {
	if e == nil {
		return nil
	}
	return e.timer.C
}

func (e *effort) eased() {
	e.backlog = false
	e.tell(false)
}
