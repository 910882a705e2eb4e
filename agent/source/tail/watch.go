package tail

import "sync"

// hints gathers what the watcher noticed until the follower takes it. They are
// no more than that: everything is also found by looking at intervals.
type hints struct {
	ready chan struct{} // something is there to take

	mu    sync.Mutex
	paths map[string]struct{}
	all   bool // events were lost: anything may have changed
}

func newHints() *hints {
	return &hints{ready: make(chan struct{}, 1), paths: make(map[string]struct{})}
}

func (h *hints) add(path string) {
	h.mu.Lock()
	h.paths[path] = struct{}{}
	h.mu.Unlock()
	h.signal()
}

func (h *hints) addAll() {
	h.mu.Lock()
	h.all = true
	h.mu.Unlock()
	h.signal()
}

func (h *hints) signal() {
	select {
	case h.ready <- struct{}{}:
	default:
	}
}

func (h *hints) take() (paths map[string]struct{}, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	paths, all = h.paths, h.all
	h.paths, h.all = make(map[string]struct{}), false
	return paths, all
}
