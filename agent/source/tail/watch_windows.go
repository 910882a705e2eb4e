package tail

// A watcher would bring events. Windows reports the size of a file that is
// held open late, to whoever watches folders; looking at the file finds it.
type watcher struct{}

func newWatcher(*hints) (*watcher, error) { return nil, nil }

func (*watcher) close() {}

func (*watcher) folder(string) (bool, error) { return false, nil }

func (*watcher) all([]string) bool { return false }

func (*watcher) once(string) error { return nil }
