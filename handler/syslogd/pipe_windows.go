package syslogd

import "errors"

var errWindows = errors.New("there is no syslog daemon on Windows")

func makePipe(string, int, int) (remade bool, err error) {
	return false, errWindows
}

func sameOwner(string, string) error { return errWindows }
