package decant

import (
	"errors"
	"fmt"
	"slices"
)

// Code says what kind of failure an error is. Codes are few: each one stands
// for something the caller may do. A Code is an error itself, so that
//
//	errors.Is(err, decant.NotFound)
//
// holds for every error of that kind, also after it crossed HTTP or CoAP.
type Code string

// The codes, and what a caller may do about each.
const (
	Invalid     Code = "invalid"     // the request is wrong: change it
	NotFound    Code = "not_found"   // name something that exists
	Conflict    Code = "conflict"    // somebody else changed it: read again, then retry
	Denied      Code = "denied"      // not allowed, or not known: get the right to
	Infeasible  Code = "infeasible"  // no device satisfies what is asked: change devices or needs
	Unsupported Code = "unsupported" // this build or device does not offer it
	Exhausted   Code = "exhausted"   // a limit or a queue is full: retry later or raise it
	Unavailable Code = "unavailable" // not reachable, and not executed: retrying is safe
	Deadline    Code = "deadline"    // time ran out; it may have been executed
	GuestFailed Code = "guest"       // the module itself failed: see its log
	Corrupt     Code = "corrupt"     // bytes are not those their digest promised
	Internal    Code = "internal"    // a fault of decant
)

// Known reports whether c is one of the codes above.
func (c Code) Known() bool {
	return slices.Contains([]Code{
		Invalid, NotFound, Conflict, Denied, Infeasible, Unsupported,
		Exhausted, Unavailable, Deadline, GuestFailed, Corrupt, Internal,
	}, c)
}

// Error returns the code's name.
func (c Code) Error() string { return string(c) }

// Error is an error with a code, a message of one line, and, where there is
// one, the way out.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Help    string `json:"help,omitempty"` // what to do, as a sentence or a command
	cause   error
}

// Errorf makes an Error. A %w in format keeps the cause for inspection.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// WithHelp returns a copy of e that says what to do.
func (e *Error) WithHelp(format string, args ...any) *Error {
	c := *e
	c.Help = fmt.Sprintf(format, args...)
	return &c
}

// WithHelp returns err saying what to do, unless it says so already.
func WithHelp(err error, format string, args ...any) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Help == "" {
		return e.WithHelp(format, args...)
	}
	return err
}

func (e *Error) Error() string {
	if e.Help == "" {
		return e.Message
	}
	return e.Message + "; " + e.Help
}

// Unwrap returns the cause given to Errorf by %w.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is e's code.
func (e *Error) Is(target error) bool { return target == error(e.Code) }

// CodeOf returns the code of the first Error in err's chain, "" for nil, and
// Internal for an error without one.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	return Internal
}
