package kubeshim

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// status is an error as the API answers it.
type status struct {
	code            int
	reason, message string
	key             key
}

func (s *status) Error() string { return s.message }

func (s *status) object() object {
	o := object{
		"kind": "Status", "apiVersion": "v1", "metadata": object{}, "status": "Failure",
		"message": s.message, "reason": s.reason, "code": s.code,
	}
	if s.key.r != nil {
		o["details"] = object{"name": s.key.name, "group": s.key.r.group, "kind": s.key.r.plural}
	}
	return o
}

func failure(code int, reason, message string, k key) *status {
	return &status{code, reason, message, k}
}

func named(k key) string {
	what := k.r.plural
	if k.r.group != "" {
		what += "." + k.r.group
	}
	return fmt.Sprintf("%s %q", what, k.name)
}

func notFound(k key) error {
	return failure(http.StatusNotFound, "NotFound", named(k)+" not found", k)
}

func badRequest(format string, args ...any) error {
	return failure(http.StatusBadRequest, "BadRequest", fmt.Sprintf(format, args...), key{})
}

func conflict(k key) error {
	return failure(http.StatusConflict, "Conflict", "Operation cannot be fulfilled on "+named(k)+": the object has been modified; please apply your changes to the latest version and try again", k)
}

func forbidden(k key, verb string) error {
	return failure(http.StatusForbidden, "Forbidden", named(k)+" is forbidden: this API is a small one for a CSI driver, and lets nobody "+verb+" it", k)
}

var errNowhere = failure(http.StatusNotFound, "NotFound", "the server could not find the requested resource; this API is a small one for a CSI driver, with nodes, csinodes, secrets, configmaps and leases", key{})

func write(w http.ResponseWriter, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n'))
}

func writeError(w http.ResponseWriter, err error) {
	s, ok := errors.AsType[*status](err)
	if !ok {
		s = failure(http.StatusInternalServerError, "InternalError", "Internal error occurred: "+err.Error(), key{})
	}
	write(w, s.code, s.object())
}
