package journal

import "time"

// Facilities and severities that entries without one have: those that journald
// itself assumes.
const (
	kernel      = 0
	user        = 1
	auth        = 4
	informative = 6

	facilities = 24
	severities = 8
)

// either returns the first of two fields that the entry has.
func (f *fields) either(first, second field) []byte {
	if value := f.value(first); len(value) > 0 {
		return value
	}
	return f.value(second)
}

// severity returns the severity, 0 to 7.
func (f *fields) severity() uint8 {
	if n, ok := number(f.value(fieldPriority)); ok && n < severities {
		return uint8(n)
	}
	return informative
}

// facility returns the facility, 0 to 23. journald gives audit messages one that
// is still shifted to its place in PRI.
func (f *fields) facility() uint8 {
	n, ok := number(f.value(fieldFacility))
	switch {
	case ok && n < facilities:
		return uint8(n)
	case ok && n%severities == 0 && n/severities < facilities:
		return uint8(n / severities)
	}
	switch string(f.value(fieldTransport)) {
	case "kernel":
		return kernel
	case "audit":
		return auth
	}
	return user
}

// time returns when the message was sent, or else when journald took it.
func (f *fields) time(e *entry) time.Time {
	if n, ok := number(f.value(fieldSourceTime)); ok && n > 0 {
		return time.UnixMicro(int64(n))
	}
	return time.UnixMicro(int64(min(e.realtime, 1<<62)))
}

// number reads a decimal number of at most eighteen digits.
func number(s []byte) (n uint64, ok bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, true
}
