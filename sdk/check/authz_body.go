package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/sdk/client"
)

// bodyCases are the ways in which authorization plugins were got round before.
func bodyCases() []Case {
	return ofKind(AuthZ, []Case{
		{
			ID: "authz/key-spellings", run: keySpellings,
			Asserts: "Keys of a body are read whatever their case and however they are escaped, as engines read them.",
			Source:  docAuthz + ", AuthZPlugin.AuthZReq (RequestBody); encoding/json, Unmarshal",
		},
		{
			ID: "authz/duplicate-keys", run: duplicateKeys,
			Asserts: "A key that is there twice hides nothing: an engine takes the last value, and merges objects.",
			Source:  "encoding/json, Unmarshal; " + docAuthz,
		},
		{
			ID: "authz/missing-body", run: missingBody,
			Asserts: "A request whose denial lies in its body is not allowed when the body is kept back, with Content-Length 0 or without headers.",
			Source:  "CVE-2024-41110; " + mobyAuthz + ", AuthZRequest",
		},
		{
			ID: "authz/chunked-body", run: chunkedBody,
			Asserts: "Nor when it was chunked, of which no header tells.",
			Source:  "CVE-2024-41110; " + mobyAuthz + ", AuthZRequest",
		},
		{
			ID: "authz/body-above-limit", run: bodyAboveLimit,
			Asserts: "Nor when it was larger than what engines pass on.",
			Source:  "CVE-2026-34040; " + mobyAuthz + ", AuthZRequest",
		},
		{
			ID: "authz/form-body", run: formBody,
			Asserts: "A request that is denied for its query is not allowed when the query is gone and a form takes its place: engines read parameters from either, and pass no form on.",
			Source:  mobyAuthz + ", sendBody; moby daemon/server/httputils/httputils.go, ParseForm",
		},
		{
			ID: "authz/trailing-json", run: trailingJSON,
			Asserts: "A second JSON value behind the body hides nothing.",
			Source:  "moby daemon/server/httputils/httputils.go, ReadJSON",
		},
		{
			ID: "authz/long-body", run: longBody,
			Asserts: "What a body asks for is seen also behind or in front of 4 MiB of padding.",
			Source:  mobyAuthz + ", AuthZRequest (4 MiB since 29.3.1)",
		},
	})
}

// bodies calls f with each denied example whose body is an object, and whose denial lies in
// it: the same request with an empty object is allowed, or the example is one of the options.
func (t *T) bodies(f func(r Request, body map[string]json.RawMessage)) {
	n := 0
	for _, r := range t.denials() {
		var body map[string]json.RawMessage
		if json.Unmarshal([]byte(r.Body), &body) == nil && len(body) > 0 {
			n++
			f(r, body)
		}
	}
	if n == 0 {
		t.Skipf("no request that is denied has a body; name one that is denied for its body")
	}
}

// respell writes an object with its keys changed, and those of HostConfig in it. Deeper ones
// may be names that people made up, as labels are.
func respell(body map[string]json.RawMessage, change func(string) string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(body)) {
		value := string(body[key])
		var inner map[string]json.RawMessage
		if strings.EqualFold(key, "HostConfig") && json.Unmarshal(body[key], &inner) == nil {
			value = respell(inner, change)
		}
		fmt.Fprintf(&b, `,"%s":%s`, change(key), value)
	}
	return "{" + strings.TrimPrefix(b.String(), ",") + "}"
}

func keySpellings(t *T) {
	const longS, kelvin = "\u017f", "\u212a" // what equals s and k whatever the case
	t.bodies(func(r Request, body map[string]json.RawMessage) {
		for how, change := range map[string]func(string) string{
			"upper case": strings.ToUpper, "lower case": strings.ToLower,
			"escapes": func(key string) string { return fmt.Sprintf(`\u%04x`, key[0]) + key[1:] },
			"long s":  func(key string) string { return strings.ReplaceAll(key, "s", longS) },
			"Kelvin": func(key string) string {
				return strings.ReplaceAll(strings.ReplaceAll(key, "K", kelvin), "k", kelvin)
			},
		} {
			changed := r
			changed.Body = respell(body, change)
			t.notAllowed(fmt.Sprintf("%s in %s: %s", r, how, changed.Body), changed.call())
		}
	})
}

func duplicateKeys(t *T) {
	t.bodies(func(r Request, body map[string]json.RawMessage) {
		whole := strings.TrimSpace(r.Body)
		for key, value := range body {
			for _, more := range []string{key, strings.ToLower(key), strings.ToUpper(key)} {
				for _, other := range []string{"null", "{}", string(value)} {
					first, last := r, r
					first.Body = fmt.Sprintf(`{"%s":%s,%s`, more, other, whole[1:])
					last.Body = fmt.Sprintf(`%s,"%s":%s}`, whole[:len(whole)-1], more, other)
					t.notAllowed(r.String()+" with the body "+first.Body, first.call())
					if other == "{}" { // which an engine merges; null and another value may undo what is denied
						t.notAllowed(r.String()+" with the body "+last.Body, last.call())
					}
				}
			}
		}
	})
}

// without is the call of r, which has a body, as it looks when the engine kept it back.
func without(r Request, headers map[string]string) client.APIRequest {
	call := r.call()
	call.Body, call.Headers = nil, headers
	return call
}

func (t *T) withoutBody(headers map[string]string) {
	t.bodies(func(r Request, _ map[string]json.RawMessage) {
		t.notAllowed(fmt.Sprintf("%s without its body and with the headers %v", r, headers), without(r, headers))
	})
}

func missingBody(t *T) {
	t.withoutBody(map[string]string{"Content-Type": "application/json", "Content-Length": "0"})
	t.withoutBody(nil)
}

func chunkedBody(t *T) { t.withoutBody(map[string]string{"Content-Type": "application/json"}) }

func bodyAboveLimit(t *T) {
	t.withoutBody(map[string]string{"Content-Type": "application/json", "Content-Length": "1048579"})
	t.withoutBody(map[string]string{"Content-Type": "application/json", "Content-Length": strconv.Itoa(4<<20 + 1)})
}

func formBody(t *T) {
	n := 0
	for _, r := range t.denials() {
		path, query, _ := strings.Cut(r.Target, "?")
		if query == "" || r.Method != http.MethodPost && r.Method != http.MethodPut {
			continue
		}
		n++
		form := Request{User: r.User, Method: r.Method, Target: path}
		t.notAllowed(fmt.Sprintf("%s with its query in a form", r), without(form, map[string]string{
			"Content-Type": "application/x-www-form-urlencoded", "Content-Length": strconv.Itoa(len(query)),
		}))
	}
	if n == 0 {
		t.Skipf("no POST that is denied has a query; name one that is denied for its query")
	}
}

func trailingJSON(t *T) {
	t.bodies(func(r Request, _ map[string]json.RawMessage) {
		// An engine reads the first value, and since 23 refuses what follows it.
		last := r
		last.Body = r.Body + "{}"
		t.notAllowed(r.String()+" with {} behind its body", last.call())
	})
}

func longBody(t *T) {
	t.bodies(func(r Request, _ map[string]json.RawMessage) {
		for _, n := range []int{4 << 20, 4<<20 + 1} {
			behind, inFront := padded(r.Body, n)
			for where, body := range map[string]string{"behind": behind, "in front of": inFront} {
				long := r
				long.Body = body
				t.notAllowed(fmt.Sprintf("%s with padding to %d bytes %s what it asks for", r, n, where), long.call())
			}
		}
	})
}

// padded returns an object that says no more than before, in n bytes: once with the padding
// behind what it said, once in front of that.
func padded(object string, n int) (behind, inFront string) {
	whole := strings.TrimSpace(object)
	const key, end = `"RemoraUnknown":"`, `"`
	padding := key + strings.Repeat("x", n-len(whole)-len(key)-len(end)-len(",")) + end
	return whole[:len(whole)-1] + "," + padding + "}", "{" + padding + "," + whole[1:]
}
