package volume

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// FuzzLedger reads any bytes as a ledger: it is an error or a state, and that state
// written down is the same.
func FuzzLedger(f *testing.F) {
	const head = `{"remora_ledger":1,"boot":"b"}` + "\n"
	for _, s := range []string{
		"", head, head + `{"volume":"a","mountpoint":"/m","refs":{"x":{"count":1,"since":"2001-09-09T01:46:40Z"}}}` + "\n",
		head + `{"volume":"a"}` + "\n" + `{"volu`, "{}\n", "null\n", head + "null\n", `{"remora_ledger":2,"boot":"b"}` + "\n",
	} {
		f.Add([]byte(s))
	}
	want := header{ledgerVersion, "b"}
	f.Fuzz(func(t *testing.T, b []byte) {
		live, err := readLedger(b, want)
		if err != nil {
			return
		}
		var again bytes.Buffer
		enc := json.NewEncoder(&again)
		for _, v := range append([]any{want}, records(live)...) {
			if err := enc.Encode(v); err != nil {
				t.Fatal(err)
			}
		}
		got, err := readLedger(again.Bytes(), want)
		if err != nil || !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(live))) {
			t.Errorf("%q is %v, and written again %v, %v", b, live, got, err)
		}
	})
}

func records(live map[string]record) []any {
	var all []any
	for _, name := range slices.Sorted(maps.Keys(live)) {
		all = append(all, live[name])
	}
	return all
}

// FuzzMountinfo reads any bytes as a mount table, and any path through the kernel's
// escapes and back.
func FuzzMountinfo(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", "/run/a b\tc\n\\d#")
	f.Add(`1 2 0:1 / /a\040b\134 rw - tmpfs none rw`, `\`)
	f.Add("", "/")
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	f.Fuzz(func(t *testing.T, table, p string) {
		for _, e := range parseMountinfo([]byte(table)) {
			if !strings.Contains(table, e.device) {
				t.Errorf("device %q is not in the table", e.device)
			}
			locate([]mountEntry{e}, p)
		}
		if p == "" || strings.Contains(p, "\x00") {
			return
		}
		if got := unescape(escape.Replace(p)); got != p {
			t.Errorf("%q came back as %q", p, got)
		}
		p = filepath.Clean("/" + p)
		line := "1 2 0:1 / " + escape.Replace(p) + " rw - tmpfs none rw\n"
		entries := parseMountinfo([]byte(line))
		if len(entries) != 1 || entries[0].point != p {
			t.Fatalf("%q parsed as %+v", line, entries)
		}
		device, root, ok := locate(entries, filepath.Join(p, "x/y"))
		if !ok || device != "0:1" || root != "/x/y" {
			t.Errorf("below %q lies %q of %q, %t", p, root, device, ok)
		}
	})
}

// FuzzName: what passes for a name is one element of a path, on every file system.
func FuzzName(f *testing.F) {
	for _, s := range []string{"a", "A.b_c-d", "", ".", "..", "../x", "a/b", "-rf", "ä", strings.Repeat("n", MaxName+1), "a\x00", "con"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := CheckName(name)
		if err == nil {
			if !filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > MaxName || !utf8.ValidString(name) ||
				strings.ContainsAny(name, " \t\n\\/:*\"'$`") || strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") {
				t.Errorf("%q passes for a name", name)
			}
			return
		}
		if !errors.Is(err, errdefs.ErrInvalid) || strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 4*MaxName+200 {
			t.Errorf("%q: %v", name, err)
		}
	})
}

// FuzzVolumeWire sends any bytes to each method: it is answered, in JSON of one line, and
// with 200 only where the bytes are JSON that names a volume.
func FuzzVolumeWire(f *testing.F) {
	for _, s := range []string{
		"", "null", "{}", `{"Name":"a"}`, `{"Name":"a","ID":"x"}`, `{"Name":"b","Opts":{"k":"v"}}`, `{"name":"a"}`, `{"Name":"a"}{`, "[]",
		`{"Name":"../x"}`, "\xff", `{"Name":"a","Opts":[]}`,
	} {
		f.Add([]byte(s))
	}
	methods := []string{"Create", "Mount", "Path", "Get", "Unmount", "Remove", "List", "Capabilities"}
	f.Fuzz(func(t *testing.T, body []byte) {
		h, err := NewHandler(t.Context(), newFake("/", "a"), Options{Refresh: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close(t.Context())
		for _, method := range methods {
			w := func() (w interface {
				Result() *http.Response
			},
			) {
				defer func() {
					if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares so
						t.Fatalf("%s of %q: %v", method, body, p)
					}
				}()
				return post(t, h, method, body)
			}()
			if w == nil {
				if method != "Get" {
					t.Errorf("%s of %q is not answered", method, body)
				}
				continue
			}
			var request struct{ Name string }
			var answer struct{ Err string }
			r := w.Result()
			if err := json.NewDecoder(r.Body).Decode(&answer); err != nil || strings.ContainsAny(answer.Err, "\r\n") {
				t.Errorf("%s of %q: answer %+v, %v", method, body, answer, err)
			}
			if r.StatusCode != http.StatusOK && answer.Err == "" {
				t.Errorf("%s of %q: status %d without a word", method, body, r.StatusCode)
			}
			if method == "List" || method == "Capabilities" || r.StatusCode != http.StatusOK {
				continue
			}
			if err := json.Unmarshal(body, &request); err != nil || CheckName(request.Name) != nil {
				t.Errorf("%s of %q succeeds", method, body)
			}
		}
	})
}
