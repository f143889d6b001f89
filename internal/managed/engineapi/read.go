package engineapi

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxBody bounds the JSON of a request in bytes.
const maxBody = 1 << 20

// read decodes the one JSON value of a request.
func read(w http.ResponseWriter, r *http.Request, v any) error {
	if r.ContentLength != 0 {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "application/json" {
			return errdefs.Errorf(errdefs.ErrInvalid, "unsupported Content-Type header (%s): must be 'application/json'", r.Header.Get("Content-Type"))
		}
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errdefs.Errorf(errdefs.ErrInvalid, "got EOF while reading request body")
		}
		return errdefs.Errorf(errdefs.ErrInvalid, "invalid JSON: %w", err)
	}
	if dec.More() {
		return errdefs.Errorf(errdefs.ErrInvalid, "unexpected content after JSON")
	}
	return nil
}

// flag reads a query parameter as dockerd does: everything is true but a few words.
func flag(r *http.Request, name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.URL.Query().Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// filters are those of a list, by their keys.
type filters map[string][]string

// readFilters takes both forms: {"key":{"value":true}} and {"key":["value"]}.
func readFilters(q url.Values, known ...string) (filters, error) {
	raw := q.Get("filters")
	f := filters{}
	if raw == "" {
		return f, nil
	}
	sets := map[string]map[string]bool{}
	if err := json.Unmarshal([]byte(raw), &sets); err != nil {
		if json.Unmarshal([]byte(raw), &f) != nil {
			return nil, withStatus(http.StatusBadRequest, errdefs.Errorf(errdefs.ErrInvalid, "invalid filters: %w", err))
		}
	}
	for key, values := range sets {
		for value, on := range values {
			if on {
				f[key] = append(f[key], value)
			}
		}
		slices.Sort(f[key])
	}
	for key := range f {
		if !slices.Contains(known, key) {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "Invalid filter '%s'", key)
		}
	}
	return f, nil
}

// boolean reads a filter that is true or false; nil is no such filter.
func (f filters) boolean(key string) (*bool, error) {
	values := f[key]
	if len(values) == 0 {
		return nil, nil
	}
	wrong := errdefs.Errorf(errdefs.ErrInvalid, "Invalid filter '%s=[%s]'", key, strings.Join(values, " "))
	if len(values) > 1 {
		return nil, wrong
	}
	if values[0] != "0" && values[0] != "1" && values[0] != "true" && values[0] != "false" {
		return nil, wrong
	}
	b, err := strconv.ParseBool(values[0])
	if err != nil {
		return nil, wrong
	}
	return &b, nil
}

// labels tells whether an object has all labels that are asked for, "key" or "key=value".
func (f filters) labels(key string, of map[string]string) bool {
	for _, wanted := range f[key] {
		k, v, hasValue := strings.Cut(wanted, "=")
		have, ok := of[k]
		if !ok || hasValue && have != v {
			return false
		}
	}
	return true
}
