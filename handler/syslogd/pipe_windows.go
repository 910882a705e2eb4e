package rsyslog

import "errors"

func (m *machine) makePipe() (remade bool, err error) {
	return false, errors.New("there is no rsyslog on Windows")
}
