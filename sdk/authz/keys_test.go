package authz

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// create is a part of what an engine decodes the body of /containers/create into.
type create struct {
	Image      string
	Labels     map[string]string
	HostConfig *struct {
		Privileged bool
		Binds      []string
	}
}

func TestDecodeBody(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		privileged bool
		binds      []string
	}{
		{"plain", `{"HostConfig":{"Privileged":true,"Binds":["/:/h"]}}`, true, []string{"/:/h"}},
		{"other case", `{"hostCONFIG":{"PRIVILEGED":true,"binds":["/:/h"]}}`, true, []string{"/:/h"}},
		{"long s", `{"HostConfig":{"Bindſ":["/:/h"]}}`, false, []string{"/:/h"}},
		{"escaped", `{"\u0048ostConfig":{"Privilege\u0064":true}}`, true, nil},
		{"scalar twice, the last counts", `{"HostConfig":{"Privileged":false,"privileged":true}}`, true, nil},
		{"object twice, merged", `{"HostConfig":{"Privileged":true},"hostconfig":{}}`, true, nil},
		{"object and null", `{"HostConfig":{"Privileged":true},"HostConfig":null,"hostconfig":{"Binds":[]}}`, false, []string{}},
		{"unknown keys", `{"Tomorrow":[1,{}],"HostConfig":{"Privileged":true}}`, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got create
			if err := (&Request{Body: []byte(tt.body)}).DecodeBody(&got); err != nil {
				t.Fatal(err)
			}
			if got.HostConfig.Privileged != tt.privileged {
				t.Errorf("privileged is %v", got.HostConfig.Privileged)
			}
			if diff := cmp.Diff(tt.binds, got.HostConfig.Binds); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeBodyRefusesBodies(t *testing.T) {
	for _, body := range []string{"", "s3cret", `{}{}`, `{} x`, `{"Image":12345}`, `[]`, `{"Image":"a"`} {
		var v create
		err := (&Request{Body: []byte(body)}).DecodeBody(&v)
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", body, err)
		} else if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "12345") {
			t.Errorf("%q is repeated in %q", body, err)
		}
	}
}

func TestDecodeBodyRefusesTypes(t *testing.T) {
	r := &Request{Body: []byte(`{}`)}
	type tree struct {
		Next  *tree
		When  time.Time
		other any
		Skip  any `json:"-"`
	}
	var nilTree *tree
	for _, v := range []any{
		nil,
		create{},
		nilTree, new(any), &map[string]string{}, new(string),
		&struct{ HostConfig json.RawMessage }{}, &struct{ A []map[string]any }{}, &struct{ A struct{ B *any } }{},
	} {
		if err := r.DecodeBody(v); err == nil || errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%T: %v, want an error of the program, not of the request", v, err)
		}
	}
	if err := r.DecodeBody(&tree{other: 1}); err != nil {
		t.Errorf("a type that refers to itself: %v", err)
	}
	if err := (&Request{Body: []byte(`[{"name":"x"}]`)}).DecodeBody(&[]struct{ Name string }{}); err != nil {
		t.Errorf("a slice: %v", err)
	}
}

func TestDuplicateKeys(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       []string
	}{
		{"none", `{"A":1,"B":{"A":1},"C":[{"A":1},{"A":2}]}`, nil},
		{"no body", ``, nil},
		{"exact", `{"A":1,"A":2}`, []string{"A"}},
		{"by case", `{"Privileged":false,"privileged":true}`, []string{"privileged"}},
		{"by escape", `{"A":1,"\u0041":2}`, []string{"A"}},
		{"by Kelvin sign", `{"Links":1,"LinKs":2}`, []string{"LinKs"}},
		{"by long s", `{"Binds":1,"Bindſ":2}`, []string{"Bindſ"}},
		{"deep", `{"HostConfig":{"X":[[{"B":1,"b":2}]]}}`, []string{"HostConfig.X.b"}},
		{"object twice", `{"HostConfig":{"Privileged":true},"HostConfig":{}}`, []string{"HostConfig"}},
		{"thrice is told once", `{"A":1,"A":2,"A":3}`, []string{"A"}},
		{"labels may differ in case", `{"Labels":{"a":"1","A":"2"},"Volumes":{"/data":{},"/Data":{}}}`, nil},
		{"labels may not be the same", `{"labels":{"a":"1","a":"2"}}`, []string{"labels.a"}},
		{"what lies in labels is no label", `{"Labels":{"a":{"x":1,"X":2}}}`, []string{"Labels.a.X"}},
		{"a list called config is none", `{"Config":[{"x":1,"X":2}]}`, []string{"Config.X"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := (&Request{Body: []byte(tt.body)}).DuplicateKeys()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDuplicateKeysOfWrongJSON(t *testing.T) {
	for _, body := range []string{"x", "{", "{}{}", `{"a":1,}`, "{} 1", strings.Repeat("[", 10001) + strings.Repeat("]", 10001)} {
		if _, err := (&Request{Body: []byte(body)}).DuplicateKeys(); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%.20q: %v", body, err)
		}
	}
}

// TestFoldIsThatOfJSON holds fold to what encoding/json does, rune by rune.
func TestFoldIsThatOfJSON(t *testing.T) {
	for _, r := range "kKKsSſiıİéÉßẞΣσςǅǆǄ" {
		for _, field := range []struct {
			name string
			get  func(string) bool
		}{
			{"k", func(b string) bool { var v struct{ K int }; return json.Unmarshal([]byte(b), &v) == nil && v.K == 1 }},
			{"s", func(b string) bool { var v struct{ S int }; return json.Unmarshal([]byte(b), &v) == nil && v.S == 1 }},
			{"é", func(b string) bool { var v struct{ É int }; return json.Unmarshal([]byte(b), &v) == nil && v.É == 1 }},
			{"σ", func(b string) bool { var v struct{ Σ int }; return json.Unmarshal([]byte(b), &v) == nil && v.Σ == 1 }},
			{"i", func(b string) bool { var v struct{ I int }; return json.Unmarshal([]byte(b), &v) == nil && v.I == 1 }},
		} {
			want := field.get(`{"` + string(r) + `":1}`)
			if got := fold(string(r)) == fold(field.name); got != want {
				t.Errorf("%q and %q fold together: %v, in encoding/json %v", r, field.name, got, want)
			}
		}
	}
}
