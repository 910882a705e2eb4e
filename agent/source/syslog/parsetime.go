package syslog

import (
	"time"
)

// parseTime reads the time that s begins with and returns it with its length,
// 0 when there is none. A time ends before a space, a colon or the end.
func parseTime(s []byte, now time.Time, loc *time.Location) (at time.Time, n int) {
	if len(s) < len("1637571067") {
		return time.Time{}, 0
	}
	if !isDigit(s[0]) {
		at, n = parseMonthFirst(s, now, loc)
	} else if at, n = parseISO(s, loc); n == 0 {
		if at, n = parseYearFirst(s, loc); n == 0 {
			at, n = parseEpoch(s)
		}
	}
	if n > 0 && n < len(s) && s[n] != ' ' && s[n] != ':' {
		return time.Time{}, 0
	}
	return at, n
}

// parseMonthFirst reads "Jan _2 15:04:05" with an optional fraction and an
// optional year, before the clock or after it.
func parseMonthFirst(s []byte, now time.Time, loc *time.Location) (time.Time, int) {
	month, day, n := monthDay(s)
	if n == 0 {
		return time.Time{}, 0
	}
	year := 0
	if len(s) > n+4 && s[n+4] == ' ' {
		if y, ok := fourDigits(s[n:]); ok {
			year, n = y, n+5
		}
	}
	c, m := parseClock(s[n:])
	if m == 0 {
		return time.Time{}, 0
	}
	n += m
	if year == 0 && len(s) >= n+5 && isDigit(s[n+1]) && s[n] == ' ' && (len(s) == n+5 || s[n+5] == ' ' || s[n+5] == ':') {
		if y, ok := fourDigits(s[n+1:]); ok && y >= 1970 && y < 2100 {
			year, n = y, n+5
		}
	}
	if year == 0 {
		return nearest(now, month, day, c, loc), n
	}
	if day > daysIn(year, month) {
		return time.Time{}, 0
	}
	return c.on(year, month, day, loc), n
}

// parseYearFirst reads "2006 Jan _2 15:04:05", the example of RFC 3164 §5.4.
func parseYearFirst(s []byte, loc *time.Location) (time.Time, int) {
	year, ok := fourDigits(s)
	if !ok || s[4] != ' ' {
		return time.Time{}, 0
	}
	month, day, n := monthDay(s[5:])
	if n == 0 || day > daysIn(year, month) {
		return time.Time{}, 0
	}
	c, m := parseClock(s[5+n:])
	if m == 0 {
		return time.Time{}, 0
	}
	return c.on(year, month, day, loc), 5 + n + m
}

// monthDay reads "Jan _2 ", the day with or without a leading space or zero.
func monthDay(s []byte) (month time.Month, day, n int) {
	if month = monthOf(s); month == 0 || s[3] != ' ' {
		return 0, 0, 0
	}
	n = 4
	if n < len(s) && s[n] == ' ' {
		n++
	}
	for n < len(s) && isDigit(s[n]) && day < 10 {
		day = 10*day + int(s[n]-'0')
		n++
	}
	// 29 February is a day whatever the year: that is still to be found.
	if day == 0 || day > daysIn(2000, month) || n == len(s) || s[n] != ' ' {
		return 0, 0, 0
	}
	return month, day, n + 1
}

func monthOf(s []byte) time.Month {
	if len(s) < 4 {
		return 0
	}
	switch uint32(s[0]|0x20)<<16 | uint32(s[1]|0x20)<<8 | uint32(s[2]|0x20) {
	case 'j'<<16 | 'a'<<8 | 'n':
		return time.January
	case 'f'<<16 | 'e'<<8 | 'b':
		return time.February
	case 'm'<<16 | 'a'<<8 | 'r':
		return time.March
	case 'a'<<16 | 'p'<<8 | 'r':
		return time.April
	case 'm'<<16 | 'a'<<8 | 'y':
		return time.May
	case 'j'<<16 | 'u'<<8 | 'n':
		return time.June
	case 'j'<<16 | 'u'<<8 | 'l':
		return time.July
	case 'a'<<16 | 'u'<<8 | 'g':
		return time.August
	case 's'<<16 | 'e'<<8 | 'p':
		return time.September
	case 'o'<<16 | 'c'<<8 | 't':
		return time.October
	case 'n'<<16 | 'o'<<8 | 'v':
		return time.November
	case 'd'<<16 | 'e'<<8 | 'c':
		return time.December
	}
	return 0
}

// parseISO reads "2006-01-02T15:04:05" with an optional fraction and an
// optional zone (Z, ±07:00, ±0700). A space may stand for the T.
func parseISO(s []byte, loc *time.Location) (time.Time, int) {
	if len(s) < len("2006-01-02T15:04:05") || s[4] != '-' || s[7] != '-' || s[10]|0x20 != 't' && s[10] != ' ' {
		return time.Time{}, 0
	}
	year, ok := fourDigits(s)
	month, okMonth := twoDigits(s[5:])
	day, okDay := twoDigits(s[8:])
	if !ok || !okMonth || !okDay || month < 1 || month > 12 || day < 1 || day > daysIn(year, time.Month(month)) {
		return time.Time{}, 0
	}
	c, n := parseClock(s[11:])
	if n == 0 {
		return time.Time{}, 0
	}
	n += 11
	offset, m := parseOffset(s[n:])
	if m == 0 {
		return c.on(year, time.Month(month), day, loc), n
	}
	return time.Unix(c.seconds(year, time.Month(month), day)-int64(offset), int64(c.nanos)).UTC(), n + m
}

// parseOffset reads a zone, in seconds east of UTC.
func parseOffset(s []byte) (seconds, n int) {
	switch {
	case len(s) == 0:
		return 0, 0
	case s[0]|0x20 == 'z':
		return 0, 1
	case s[0] != '+' && s[0] != '-' || len(s) < len("+0700"):
		return 0, 0
	}
	n = 3
	if s[n] == ':' {
		n++
	}
	hours, ok := twoDigits(s[1:])
	minutes, okMinutes := twoDigits(s[n:])
	if !ok || !okMinutes || hours > 23 || minutes > 59 {
		return 0, 0
	}
	seconds = hours*3600 + minutes*60
	if s[0] == '-' {
		seconds = -seconds
	}
	return seconds, n + 2
}

// parseEpoch reads ten digits of seconds since 1970 with an optional fraction.
func parseEpoch(s []byte) (time.Time, int) {
	if !isEpoch(s) {
		return time.Time{}, 0
	}
	var seconds int64
	for _, c := range s[:10] {
		seconds = 10*seconds + int64(c-'0')
	}
	nanos, n := fraction(s[10:])
	return time.Unix(seconds, int64(nanos)).UTC(), 10 + n
}

// isEpoch tells ten digits that begin with 1 or 2: the years 2001 to 2065.
func isEpoch(s []byte) bool {
	if len(s) < 11 || s[0] != '1' && s[0] != '2' || s[10] != '.' && s[10] != ' ' {
		return false
	}
	_, ok := number(s[1:10])
	return ok
}

// A clock is a time of day.
type clock struct{ hour, minute, second, nanos int }

// parseClock reads "15:04:05" with an optional fraction. The second may be 60.
func parseClock(s []byte) (c clock, n int) {
	const form = len("15:04:05")
	if len(s) < form || s[2] != ':' || s[5] != ':' {
		return clock{}, 0
	}
	var okHour, okMinute, okSecond bool
	c.hour, okHour = twoDigits(s)
	c.minute, okMinute = twoDigits(s[3:])
	c.second, okSecond = twoDigits(s[6:])
	if !okHour || !okMinute || !okSecond || c.hour > 23 || c.minute > 59 || c.second > 60 {
		return clock{}, 0
	}
	c.nanos, n = fraction(s[form:])
	return c, form + n
}

// fraction reads "." or "," and digits. Beyond nanoseconds they are dropped.
func fraction(s []byte) (nanos, n int) {
	if len(s) < 2 || s[0] != '.' && s[0] != ',' || !isDigit(s[1]) {
		return 0, 0
	}
	const most = len(".123456789")
	for n = 1; n < len(s) && n < most && isDigit(s[n]); n++ {
		nanos = 10*nanos + int(s[n]-'0')
	}
	nanos *= [most]int{1: 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 1e2, 10, 1}[n-1]
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return nanos, n
}

func (c clock) on(year int, month time.Month, day int, loc *time.Location) time.Time {
	if loc == time.UTC {
		return time.Unix(c.seconds(year, month, day), int64(c.nanos)).UTC()
	}
	return time.Date(year, month, day, c.hour, c.minute, c.second, c.nanos, loc)
}

// seconds returns the seconds since 1970 of a time in UTC. The year counts from
// March, so that a leap day is its last.
func (c clock) seconds(year int, month time.Month, day int) int64 {
	y, m := year, int(month)-3
	if m < 0 {
		y, m = y-1, m+12
	}
	const before = 719468 // days from March of the year 0 to 1970
	y += 400              // so that no division is of a negative number
	days := 365*y + y/4 - y/100 + y/400 - 146097 + (153*m+2)/5 + day - 1 - before
	return int64(days)*86400 + int64(c.hour*3600+c.minute*60+c.second)
}

// nearest returns the time in the year that puts it nearest to now: a message
// of December that is read in January belongs to the old year.
func nearest(now time.Time, month time.Month, day int, c clock, loc *time.Location) time.Time {
	const (
		sure     = 150 * 24 * 3600 // seconds: of any other year it is farther
		meanYear = 31556952
	)
	if guess := 1970 + int(now.Unix()/meanYear); day <= daysIn(guess, month) {
		if t := c.on(guess, month, day, loc); distance(t, now) < sure {
			return t
		}
	}
	year := now.In(loc).Year()
	best := c.on(year, month, day, loc)
	found := day <= daysIn(year, month)
	for _, y := range [...]int{year - 1, year + 1, year - 2, year + 2, year - 3, year + 3, year - 4, year + 4} {
		if day > daysIn(y, month) {
			continue // 29 February
		}
		if t := c.on(y, month, day, loc); !found || distance(t, now) < distance(best, now) {
			best, found = t, true
		}
	}
	return best
}

// distance returns the seconds between two times.
func distance(a, b time.Time) int64 {
	d := a.Unix() - b.Unix()
	return max(d, -d)
}

func daysIn(year int, month time.Month) int {
	switch month {
	case time.April, time.June, time.September, time.November:
		return 30
	case time.February:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	default:
		return 31
	}
}

func twoDigits(s []byte) (int, bool) {
	if len(s) < 2 {
		return 0, false
	}
	high, low := s[0]-'0', s[1]-'0'
	return 10*int(high) + int(low), high <= 9 && low <= 9
}

func fourDigits(s []byte) (int, bool) {
	if len(s) < 4 {
		return 0, false
	}
	high, ok := twoDigits(s)
	low, okLow := twoDigits(s[2:])
	return 100*high + low, ok && okLow
}
