package wire_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

func FuzzVolume(f *testing.F) {
	fuzz(f, "VolumeDriver.", `{"name":"v","OPTS":{"a":"b"},"ID":"x"}`, `{"Volume":{"Name":"v","Status":{"a":[null,1e3]}},"Err":"e"}`)
}

func FuzzNetwork(f *testing.F) {
	fuzz(f, "NetworkDriver.",
		`{"NetworkID":"n","EndpointID":"e","Options":{"a":{"<":1 , "b":[]},"c":null},"IPv4Data":[{}],"Interface":null}`,
		`{"Options":{"a":"b"},"SkipIPv4":true}`, `{"DiscoveryType":1,"DiscoveryData":{"Address":"a","Self":true}}`,
		`{"InterfaceName":{"DstName":"lan0"},"StaticRoutes":[{"NextHop":"x"}],"Value":{"a":{"b":1}}}`)
}

func FuzzIpam(f *testing.F) {
	fuzz(f, "IpamDriver.", `{"PoolID":"p","Options":{},"V6":true}`, `{"Data":{"a":"b"},"Error":"e"}`)
}

func FuzzActivate(f *testing.F) { fuzz(f, "Plugin.", `{"Implements":null}`, `{"implements":["a",""]}`) }

// fuzz decodes bytes as the request and as the answer of each method whose name begins
// with kind: nothing panics, and what was encoded once stays as it is.
func fuzz(f *testing.F, kind string, seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	for _, x := range captures(f, "testdata/*-*/*.txtar") {
		if strings.HasPrefix(x.method, kind) {
			f.Add(x.request)
			f.Add(x.answer)
		}
	}
	var kinds []func() any
	for _, method := range slices.Sorted(maps.Keys(shapes)) {
		if s := shapes[method]; strings.HasPrefix(method, kind) {
			if s.request != nil {
				kinds = append(kinds, s.request)
			}
			kinds = append(kinds, s.answer)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range kinds {
			v, w := kind(), kind()
			if json.Unmarshal(body, v) != nil {
				continue
			}
			once, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%T of %q cannot be encoded: %v", v, body, err)
			}
			if err := json.Unmarshal(once, w); err != nil {
				t.Fatalf("%T: %s cannot be decoded again: %v", v, once, err)
			}
			if twice, err := json.Marshal(w); err != nil || !bytes.Equal(once, twice) {
				t.Errorf("%T: %s became %s, %v", v, once, twice, err)
			}
		}
	})
}
