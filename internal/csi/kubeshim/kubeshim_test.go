package kubeshim

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What Kubernetes' own client makes of it is tested in the module clientgo.

func start(t *testing.T, dir string) *Shim {
	t.Helper()
	s, err := Start(t.Context(), Config{Options: Options{Shim: true, ConfigMaps: map[string]string{"a/b/c": "d"}}, Dir: dir, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends a request as a driver does, and returns status and answer.
func ask(t *testing.T, s *Shim, method, path, contentType, body string) (int, object) {
	t.Helper()
	resp := open(t, s, method, path, contentType, body)
	defer resp.Body.Close()
	var o object
	if err := json.NewDecoder(resp.Body).Decode(&o); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, o
}

func open(t *testing.T, s *Shim, method, path, contentType, body string) *http.Response {
	t.Helper()
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(s.Account() + "/ca.crt")
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no authority", err)
	}
	token, err := os.ReadFile(s.Account() + "/token")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, e := range s.Env() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+env["KUBERNETES_SERVICE_HOST"]+":"+env["KUBERNETES_SERVICE_PORT"]+path, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	req.Header.Set("Content-Type", contentType)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestAnswers(t *testing.T) {
	s := start(t, t.TempDir())
	const js = "application/json"
	for _, c := range []struct {
		method, path, kind, body string
		code                     int
		want                     string // in the answer
	}{
		{"GET", "/version", js, "", 200, `"major":"1"`},
		{"GET", "/api", js, "", 200, `"versions":["v1"]`},
		{"GET", "/apis/storage.k8s.io", js, "", 200, `"storage.k8s.io/v1"`},
		{"GET", "/apis/apps/v1", js, "", 404, "NotFound"},
		{"POST", "/apis", js, "{}", 405, "MethodNotAllowed"},
		{"GET", "/api/v1/nodes/n", js, "", 200, `"kubernetes.io/hostname":"n"`},
		{"GET", "/api/v1/nodes/n/status", js, "", 200, `"Ready"`},
		{"GET", "/api/v1/nodes/n/proxy", js, "", 404, "NotFound"},
		{"GET", "/api/v1/namespaces/a/nodes/n", js, "", 404, "NotFound"},
		{"GET", "/api/v1/configmaps", js, "", 200, `"c":"d"`},
		{"GET", "/api/v1/configmaps/b", js, "", 404, "NotFound"},
		{"GET", "/api/v1/namespaces/a/configmaps/b", js, "", 200, `"c":"d"`},
		{"GET", "/api/v1/nodes?fieldSelector=spec.x%3Dy", js, "", 400, "only metadata.name"},
		{"GET", "/api/v1/nodes?labelSelector=a%20like%20b", js, "", 400, "unable to parse"},
		{"GET", "/api/v1/nodes?watch=1&resourceVersion=x", js, "", 400, "invalid resource version"},
		{"PUT", "/api/v1/nodes/n", js, `{"kind":"Pod"}`, 400, "is a Pod, and not a Node"},
		{"PUT", "/api/v1/nodes/n", js, `{"metadata":{"name":"m"}}`, 400, "does not match"},
		{"PUT", "/api/v1/nodes/n", js, `{"metadata":{"uid":"m"}}`, 409, "Conflict"},
		{"PUT", "/api/v1/nodes/m", js, `{}`, 404, "NotFound"},
		{"PUT", "/api/v1/nodes/n", js, `nonsense`, 400, "unrecognized"},
		{"PATCH", "/api/v1/nodes/n", "application/apply-patch+yaml", `{}`, 415, "application/merge-patch+json"},
		{"PATCH", "/api/v1/nodes/n", "application/json-patch+json", `[{"op":"test","path":"/kind","value":"Pod"}]`, 422, "testing path /kind failed"},
		{"PATCH", "/api/v1/nodes/m", "application/merge-patch+json", `{}`, 404, "NotFound"},
		{"POST", "/apis/coordination.k8s.io/v1/namespaces/x/leases", js, `{"metadata":{"name":"Bad Name"}}`, 422, "Invalid"},
		{"POST", "/apis/coordination.k8s.io/v1/leases", js, `{"metadata":{"name":"l"}}`, 422, "Invalid"},
		{"DELETE", "/apis/coordination.k8s.io/v1/namespaces/x/leases/l", js, "", 404, "NotFound"},
		{"DELETE", "/apis/coordination.k8s.io/v1/namespaces/x/leases", js, "", 405, "MethodNotAllowed"},
		{"POST", "/api/v1/nodes", js, `{"metadata":{"name":"m"}}`, 403, "lets nobody create it"},
	} {
		code, o := ask(t, s, c.method, c.path, c.kind, c.body)
		data, err := json.Marshal(o)
		if err != nil || code != c.code || !strings.Contains(string(data), c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, code, data, c.code, c.want)
		}
	}
}

// TestAgain: a driver finds the API where it was; where it cannot be any more its environment tells.
func TestAgain(t *testing.T) {
	dir := t.TempDir()
	first, err := Start(t.Context(), Config{Options: Options{Shim: true}, Dir: dir, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := Start(t.Context(), Config{Options: Options{Shim: true}, Dir: dir, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if diff := cmp.Diff(first.Env(), second.Env()); diff != "" || first.id != second.id {
		t.Error(diff)
	}
	third := start(t, dir)
	if third.id.Port == second.id.Port || third.id.Token != second.id.Token {
		t.Error("two are at one port, or one has another token")
	}
	if code, _ := ask(t, third, "GET", "/api/v1/nodes/n", "", ""); code != 200 {
		t.Errorf("it answers %d", code)
	}
}

// TestWatchList: what client-go asks for first gets all that is there, and is told when that is all.
func TestWatchList(t *testing.T) {
	s := start(t, t.TempDir())
	resp := open(t, s, "GET", "/api/v1/nodes?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=60", "", "")
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (kind string, o object) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("it ended", lines.Err())
		}
		var e struct {
			Type   string
			Object object
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		return e.Type, e.Object
	}
	if kind, o := next(); kind != "ADDED" || text(meta(o), "name") != "n" {
		t.Errorf("%s of %v", kind, o)
	}
	kind, o := next()
	annotations, _ := meta(o)["annotations"].(object)
	if kind != "BOOKMARK" || annotations["k8s.io/initial-events-end"] != "true" {
		t.Errorf("%s of %v", kind, o)
	}
	ask(t, s, "PATCH", "/api/v1/nodes/n", "application/merge-patch+json", `{"metadata":{"labels":{"x":"y"}}}`)
	if kind, o := next(); kind != "MODIFIED" || o["kind"] != "Node" {
		t.Errorf("%s of %v", kind, o)
	}
}

func TestKeys(t *testing.T) {
	for name, c := range map[string]struct {
		keys Options
		want string
	}{
		"off":        {Options{}, ""},
		"on":         {Options{Shim: true, Labels: map[string]string{"a.b/c": "", "d": "e_1"}, SecretData: map[string]string{"a/b/c.yaml": "file:/x"}}, ""},
		"of no use":  {Options{Labels: map[string]string{"a": "b"}}, `key "kube_labels": it is of no use without kubeshim = true`},
		"label":      {Options{Shim: true, Labels: map[string]string{"a b": "c"}}, `"a b" is not the name of a label`},
		"value":      {Options{Shim: true, Labels: map[string]string{"a": "b c"}}, `"b c" is not a label's value`},
		"short":      {Options{Shim: true, SecretData: map[string]string{"a/b": "file:/x"}}, `"a/b" is not NAMESPACE/NAME/KEY`},
		"in clear":   {Options{Shim: true, SecretData: map[string]string{"a/b/c": "s3cret"}}, "the value (not shown) is no reference to a secret"},
		"annotation": {Options{Shim: true, Annotations: map[string]string{"": "c"}}, "is not the name of a label"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.keys.Check()
			switch {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			case err != nil && (!errors.Is(err, errdefs.ErrInvalid) || strings.Contains(err.Error(), "s3cret")):
				t.Error(err)
			}
		})
	}
}

// TestPatches: each form of a patch does what its specification says, on examples of these.
func TestPatches(t *testing.T) {
	const merge, strategic, steps = "application/merge-patch+json", "application/strategic-merge-patch+json; charset=utf-8", "application/json-patch+json"
	for _, c := range []struct{ kind, doc, patch, want string }{
		{merge, `{"a":"b","c":{"d":"e","f":"g"}}`, `{"a":"z","c":{"f":null}}`, `{"a":"z","c":{"d":"e"}}`},
		{merge, `{"a":[1,2]}`, `{"a":[3]}`, `{"a":[3]}`},
		{merge, `{"a":"b"}`, `{"a":{"c":"d","e":null}}`, `{"a":{"c":"d"}}`},
		{strategic, `{"conditions":[{"type":"A","status":"1"},{"type":"B"}]}`, `{"conditions":[{"type":"A","status":"2"},{"$patch":"delete","type":"B"},{"type":"C"}]}`, `{"conditions":[{"type":"A","status":"2"},{"type":"C"}]}`},
		{strategic, `{"finalizers":["a","b"]}`, `{"$deleteFromPrimitiveList/finalizers":["a"]}`, `{"finalizers":["b"]}`},
		{strategic, `{"finalizers":["a"]}`, `{"finalizers":["b","a"],"$setElementOrder/finalizers":["b","a"]}`, `{"finalizers":["a","b"]}`},
		{strategic, `{"taints":[{"key":"a"}]}`, `{"taints":[{"key":"b"}]}`, `{"taints":[{"key":"b"}]}`},
		{strategic, `{"a":{"b":"c"}}`, `{"a":{"$patch":"replace","d":"e"}}`, `{"a":{"d":"e"}}`},
		{steps, `{"a":{"b/c":1,"d~":[1,2]}}`, `[{"op":"replace","path":"/a/b~1c","value":2},{"op":"add","path":"/a/d~0/1","value":9},{"op":"add","path":"/a/d~0/-","value":3}]`, `{"a":{"b/c":2,"d~":[1,9,2,3]}}`},
		{steps, `{"a":{"b":{"c":1}}}`, `[{"op":"copy","from":"/a/b","path":"/x"},{"op":"move","from":"/a","path":"/y"},{"op":"test","path":"/x/c","value":1}]`, `{"x":{"c":1},"y":{"b":{"c":1}}}`},
		{steps, `{"a":[1,2]}`, `[{"op":"remove","path":"/a/0"}]`, `{"a":[2]}`},
		{steps, `{"a":[1]}`, `[{"op":"remove","path":"/a/1"}]`, ""},
		{steps, `{"a":1}`, `[{"op":"add","path":"/a/b","value":1}]`, ""},
		{steps, `{"a":1}`, `[{"op":"burn","path":"/a"}]`, ""},
		{steps, `{"a":1}`, `[{"op":"replace","path":"","value":1}]`, ""},
		{merge, `{"a":1}`, `[]`, ""},
		{"text/plain", `{"a":1}`, `{}`, ""},
	} {
		var doc object
		if err := json.Unmarshal([]byte(c.doc), &doc); err != nil {
			t.Fatal(err)
		}
		got, err := patched(doc, c.kind, []byte(c.patch))
		if c.want == "" {
			if err == nil {
				t.Errorf("%s makes %v of %s", c.patch, got, c.doc)
			}
			continue
		}
		var want object
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, clone(got)); err != nil || diff != "" {
			t.Errorf("%s on %s: %v\n%s", c.patch, c.doc, err, diff)
		}
	}
}

func FuzzPatch(f *testing.F) {
	f.Add("application/json-patch+json", []byte(`[{"op":"move","from":"/a","path":"/b/-"}]`))
	f.Add("application/strategic-merge-patch+json", []byte(`{"conditions":[{"type":"A"}],"$setElementOrder/x":[1],"taints":null}`))
	f.Add("application/merge-patch+json", []byte(`{"metadata":{"labels":null}}`))
	f.Fuzz(func(_ *testing.T, kind string, patch []byte) {
		doc := object{"a": []any{"b", object{"c": "d"}}, "conditions": []any{object{"type": "A"}}, "metadata": object{"labels": object{"x": "y"}}}
		_, _ = patched(doc, kind, patch)
	})
}

func FuzzProtobuf(f *testing.F) {
	// A Lease "l" that "me" holds for 15 s, with a label.
	f.Add([]byte("k8s\x00\n\x05\n\x01v\x12\x00\x12\x1d\n\x11\n\x01lZ\x0c\n\x01a\x12\x01b\x12\x04none\x12\x08\n\x02me\x10\x0f\x1a\x00"), 4)
	f.Add([]byte("k8s\x00\x12\x04\x0a\x02\x42\x00"), 0)
	f.Fuzz(func(t *testing.T, data []byte, i int) {
		r := resources[uint(i)%uint(len(resources))]
		o, err := fromProtobuf(data, key{r: r}, "")
		if err != nil {
			return
		}
		if _, err := json.Marshal(o); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	s := newStore()
	k := key{find("", "v1", "nodes"), "", "n"}
	first := s.version
	for range maxEvents + 10 {
		if _, err := s.put(k, func(object) (object, error) { return object{}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, ok := s.after(first); ok {
		t.Error("what is forgotten is given out")
	}
	if events, _, ok := s.after(s.version - 3); !ok || len(events) != 3 {
		t.Errorf("%d events, %t", len(events), ok)
	}
	if _, _, ok := s.after(s.version + 1); ok {
		t.Error("what is to come is given out")
	}
	for i := range maxObjects {
		_, err := s.put(key{k.r, "", "x" + strings.Repeat("y", i)}, func(object) (object, error) { return object{}, nil })
		if (err != nil) != (i == maxObjects-1) {
			t.Fatalf("object %d: %v", i, err)
		}
	}
}
