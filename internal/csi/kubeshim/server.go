package kubeshim

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
)

// maxBody is how long a request may be; etcd takes 1.5 MiB.
const maxBody = 3 << 20

// ServeHTTP answers a driver.
func (s *Shim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch r.URL.Path {
	case "/healthz", "/livez", "/readyz":
		_, _ = io.WriteString(w, "ok")
		return
	case "/version", "/version/":
		write(w, http.StatusOK, object{
			"major": "1", "minor": "34", "gitVersion": kubeVersion, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
			"goVersion": runtime.Version(), "compiler": runtime.Compiler, "platform": runtime.GOOS + "/" + runtime.GOARCH,
		})
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || subtle.ConstantTimeCompare([]byte(token), []byte(s.id.Token)) != 1 {
		writeError(w, failure(http.StatusUnauthorized, "Unauthorized", "Unauthorized", key{}))
		return
	}
	if found, ok := discovery(path); ok {
		if r.Method != http.MethodGet {
			writeError(w, failure(http.StatusMethodNotAllowed, "MethodNotAllowed", "the server does not allow this method on the requested resource", key{}))
			return
		}
		write(w, http.StatusOK, found)
		return
	}
	k, sub, err := parsePath(path)
	if err == nil && r.Method == http.MethodGet {
		err = s.refresh(k)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	s.answer(w, r, k, sub)
}

// parsePath reads /api/v1/…, /apis/GROUP/VERSION/… with namespaces/NAMESPACE, RESOURCE, NAME and SUBRESOURCE.
func parsePath(path []string) (k key, sub string, err error) {
	var rest []string
	group, version := "", ""
	switch {
	case len(path) > 2 && path[0] == "api":
		version, rest = path[1], path[2:]
	case len(path) > 3 && path[0] == "apis":
		group, version, rest = path[1], path[2], path[3:]
	default:
		return k, "", errNowhere
	}
	if len(rest) > 2 && rest[0] == "namespaces" {
		k.namespace, rest = rest[1], rest[2:]
	}
	k.r = find(group, version, rest[0])
	if k.r == nil || len(rest) > 3 || k.namespace != "" && !k.r.namespaced || k.r.namespaced && k.namespace == "" && len(rest) > 1 {
		return k, "", errNowhere
	}
	if len(rest) > 1 {
		k.name = rest[1]
	}
	if len(rest) > 2 {
		if sub = rest[2]; sub != "status" || !k.r.status {
			return k, "", errNowhere
		}
	}
	return k, sub, nil
}

func (s *Shim) answer(w http.ResponseWriter, r *http.Request, k key, sub string) {
	var (
		out  object
		err  error
		code = http.StatusOK
	)
	switch {
	case r.Method == http.MethodGet && k.name == "":
		s.list(w, r, k)
		return
	case r.Method == http.MethodGet:
		out, err = s.store.get(k)
	case r.Method == http.MethodPost && k.name == "":
		code = http.StatusCreated
		out, err = s.create(w, r, k)
	case r.Method == http.MethodPut && k.name != "":
		out, err = s.replace(w, r, k, sub)
	case r.Method == http.MethodPatch && k.name != "":
		out, err = s.patch(w, r, k, sub)
	case r.Method == http.MethodDelete && k.name != "":
		if !k.r.made {
			err = forbidden(k, "delete")
		} else if _, err = s.store.remove(k); err == nil {
			out = object{"kind": "Status", "apiVersion": "v1", "metadata": object{}, "status": "Success"}
		}
	default:
		err = failure(http.StatusMethodNotAllowed, "MethodNotAllowed", "the server does not allow this method on the requested resource", k)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	write(w, code, out)
}

func (s *Shim) list(w http.ResponseWriter, r *http.Request, k key) {
	q := r.URL.Query()
	want, err := parseSelectors(q.Get("labelSelector"), q.Get("fieldSelector"))
	if err != nil {
		writeError(w, err)
		return
	}
	if v := q.Get("watch"); v == "true" || v == "1" {
		s.watch(w, r, k.r, k.namespace, want)
		return
	}
	all, version := s.store.list(k.r, k.namespace)
	items := []object{}
	for _, o := range all {
		if want.matches(o) {
			items = append(items, o)
		}
	}
	write(w, http.StatusOK, object{
		"kind": k.r.kind + "List", "apiVersion": k.r.apiVersion(), "metadata": object{"resourceVersion": strconv.FormatUint(version, 10)}, "items": items,
	})
}

// body reads an object that a client sends.
func body(w http.ResponseWriter, r *http.Request, k key, sub string) (object, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, badRequest("the request cannot be read: %v", err)
	}
	var o object
	if bytes.HasPrefix(data, []byte(protobufMagic)) {
		if o, err = fromProtobuf(data, k, sub); err != nil {
			return nil, err
		}
	} else if err := json.Unmarshal(data, &o); err != nil {
		return nil, badRequest("the object provided is unrecognized: %v", err)
	}
	if kind := text(o, "kind"); kind != "" && kind != k.r.kind {
		return nil, badRequest("the object is a %s, and not a %s", kind, k.r.kind)
	}
	return o, nil
}

func (s *Shim) create(w http.ResponseWriter, r *http.Request, k key) (object, error) {
	if !k.r.made {
		return nil, forbidden(k, "create")
	}
	o, err := body(w, r, k, "")
	if err != nil {
		return nil, err
	}
	k.name = text(meta(o), "name")
	if !isName(k.name) || k.r.namespaced && k.namespace == "" {
		return nil, failure(http.StatusUnprocessableEntity, "Invalid", fmt.Sprintf("%s %q is invalid: metadata.name or namespace", k.r.kind, k.name), k)
	}
	return s.store.put(k, func(old object) (object, error) {
		if old != nil {
			return nil, failure(http.StatusConflict, "AlreadyExists", named(k)+" already exists", k)
		}
		return o, nil
	})
}

func (s *Shim) replace(w http.ResponseWriter, r *http.Request, k key, sub string) (object, error) {
	if !k.r.changed {
		return nil, forbidden(k, "change")
	}
	o, err := body(w, r, k, sub)
	if err != nil {
		return nil, err
	}
	return s.store.put(k, func(old object) (object, error) { return accept(k, old, o, sub) })
}

func (s *Shim) patch(w http.ResponseWriter, r *http.Request, k key, sub string) (object, error) {
	if !k.r.changed {
		return nil, forbidden(k, "change")
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, badRequest("the request cannot be read: %v", err)
	}
	return s.store.put(k, func(old object) (object, error) {
		if old == nil {
			return nil, notFound(k)
		}
		next, err := patched(old, r.Header.Get("Content-Type"), data)
		if err != nil {
			return nil, err
		}
		return accept(k, old, next, sub)
	})
}

// accept holds a change to what may change: not who it is, and its status only through the subresource for it.
func accept(k key, old, next object, sub string) (object, error) {
	if old == nil {
		return nil, notFound(k)
	}
	m := meta(next)
	if v := text(m, "resourceVersion"); v != "" && v != text(meta(old), "resourceVersion") {
		return nil, conflict(k)
	}
	if name := text(m, "name"); name != "" && name != k.name {
		return nil, badRequest("the name of the object (%s) does not match the name on the URL (%s)", name, k.name)
	}
	if uid := text(m, "uid"); uid != "" && uid != text(meta(old), "uid") {
		return nil, conflict(k)
	}
	if !k.r.status {
		return next, nil
	}
	from, to := "status", clone(next)
	if sub == "status" {
		from, to = "status", clone(old)
		to[from] = next[from]
		to["metadata"] = clone(next)["metadata"]
		return to, nil
	}
	to[from] = old[from]
	return to, nil
}
