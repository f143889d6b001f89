package ec2

import (
	"fmt"
	"net/http"
)

// apiError is an error as EC2 answers it.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// fail is an error that the caller caused.
func fail(code, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

func failWith(status int, code, format string, args ...any) *apiError {
	return &apiError{status, code, fmt.Sprintf(format, args...)}
}

func missing(param string) *apiError {
	return fail("MissingParameter", "The request must contain the parameter %s", param)
}

func invalid(format string, args ...any) *apiError {
	return fail("InvalidParameterValue", format, args...)
}

func combination(format string, args ...any) *apiError {
	return fail("InvalidParameterCombination", format, args...)
}

func incorrectState(format string, args ...any) *apiError {
	return fail("IncorrectState", format, args...)
}
