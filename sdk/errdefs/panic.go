package errdefs

import (
	"errors"
	"fmt"
	"runtime"
)

// Recovered says, for a log, what was recovered from a panic: its type, and its text only where
// that is of the runtime or an error with a class. What else a program panics with may have a
// secret in it, such as the request that it could not send.
func Recovered(v any) string {
	err, ok := v.(error)
	if _, runtimes := errors.AsType[runtime.Error](err); ok && (runtimes || Class(err) != nil) {
		return fmt.Sprintf("%T: %s", v, OneLine(err.Error()))
	}
	return fmt.Sprintf("%T", v)
}
