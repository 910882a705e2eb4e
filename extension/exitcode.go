package extension

import (
	"errors"
	"strconv"
)

// Exit codes of the handler's commands. To the guest agent any code but 0 is a
// failure; Azure and its portal give the fifties a meaning of their own and
// take them for the user's to mend.
const (
	ExitOK                = 0
	ExitUsage             = 2
	ExitFailed            = 3
	ExitUnsupportedOS     = 51
	ExitMissingDependency = 52
	ExitBadSettings       = 53
	ExitUnreachable       = 55
)

// Meaning says what an exit code means.
func Meaning(code int) string {
	switch code {
	case ExitOK:
		return "success"
	case ExitUsage:
		return "wrong usage"
	case ExitFailed:
		return "failure of the extension"
	case ExitUnsupportedOS:
		return "operating system not supported"
	case ExitMissingDependency:
		return "something the extension needs is missing on the machine"
	case ExitBadSettings:
		return "settings are wrong or refused"
	case ExitUnreachable:
		return "service cannot be reached"
	default:
		return "exit code " + strconv.Itoa(code)
	}
}

// Clarification is the code that a status carries for an exit code: above 0
// when it is the user's to mend, 0 or below when it is ours.
func Clarification(code int) int {
	switch code {
	case ExitUnsupportedOS, ExitMissingDependency, ExitBadSettings, ExitUnreachable:
		return code
	default:
		return -code
	}
}

// An Error is an error that decides the exit code.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without its code.
func (e *Error) Unwrap() error { return e.Err }

// WithCode gives err an exit code. The outermost code counts. A nil err stays nil.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{code, err}
}

// CodeOf returns the exit code for err: the one it was given, ExitBadSettings
// for what is wrong with settings, ExitFailed for the rest.
func CodeOf(err error) int { return codeOf(err, ExitFailed) }

// codeOf is CodeOf with another code for the rest.
func codeOf(err error, rest int) int {
	var coded *Error
	var settings *SettingsError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.Code
	case errors.As(err, &settings), errors.Is(err, ErrNoSettings):
		return ExitBadSettings
	default:
		return rest
	}
}
