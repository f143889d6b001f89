package wire_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// TestAuthZCaptures decodes what a real engine (Debian's 20.10.24) sent, and what it was
// answered, and encodes it again byte for byte. The files are written by
//
//	go test ./sdk/authz -run 'TestEngine$|TestEngineWithUsers' -record DIR
func TestAuthZCaptures(t *testing.T) {
	files, err := filepath.Glob("testdata/authz-*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	section := regexp.MustCompile(`(?m)^-- (.+) --\n`)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		heads := section.FindAllSubmatchIndex(content, -1)
		if len(heads) == 0 {
			t.Errorf("%s: nothing is captured", file)
		}
		for i, head := range heads {
			end := len(content)
			if i+1 < len(heads) {
				end = heads[i+1][0]
			}
			name, body := string(content[head[2]:head[3]]), content[head[1]:end]
			var v any = new(wire.AuthZRequest)
			if strings.Contains(name, "answer") {
				v = new(wire.AuthZResponse)
				if strings.HasSuffix(name, "500") {
					v = new(wire.Error)
				}
			}
			if err := json.Unmarshal(body, v); err != nil {
				t.Errorf("%s: %s: %v", file, name, err)
				continue
			}
			var again bytes.Buffer
			if err := json.NewEncoder(&again).Encode(v); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(body), again.String()); diff != "" {
				t.Errorf("%s: %s: %s", file, name, diff)
			}
		}
	}
}

func FuzzAuthZRequest(f *testing.F) {
	f.Add([]byte(`{"RequestMethod":"POST","RequestUri":"/v1.41/volumes/create","RequestBody":"e30="}`))
	f.Add([]byte(`{"RequestPeerCertificates":["eA==",null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again wire.AuthZRequest
		if json.Unmarshal(b, &r) != nil {
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatal(err)
		}
		if b2, err := json.Marshal(again); err != nil || !bytes.Equal(b, b2) {
			t.Errorf("%s became %s, %v", b, b2, err)
		}
	})
}
