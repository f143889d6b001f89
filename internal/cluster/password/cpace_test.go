package password

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/gtank/ristretto255"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func is(t *testing.T, what string, got []byte, want hexBytes) {
	t.Helper()
	if string(got) != string(want) {
		t.Errorf("%s is %x, want %x", what, got, []byte(want))
	}
}

// TestVectors compares with those of the draft, which other implementations wrote.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/cpace.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		PRS, CI, SID    hexBytes
		GeneratorString hexBytes `json:"generator_string"`
		G, K            hexBytes
		ScalarA         hexBytes `json:"scalarA"`
		ScalarB         hexBytes `json:"scalarB"`
		ADa, ADb        hexBytes
		ShareA          hexBytes `json:"Ya"`
		ShareB          hexBytes `json:"Yb"`
		ISK             hexBytes `json:"ISK_IR"`
		Multiply        struct {
			S, X, Result hexBytes
			Invalid      []hexBytes
		}
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	is(t, "the generator string", generatorString(v.PRS, v.CI, v.SID), v.GeneratorString)
	g := generator(v.PRS, v.CI, v.SID)
	is(t, "the generator", g.Encode(nil), v.G)
	scalar := func(b []byte) *ristretto255.Scalar {
		s := ristretto255.NewScalar()
		// The draft's scalars need not be below the order of the group.
		return s.FromUniformBytes(append(slices.Clip(b), make([]byte, 64-len(b))...))
	}
	a, b := scalar(v.ScalarA), scalar(v.ScalarB)
	is(t, "A's share", ristretto255.NewElement().ScalarMult(a, g).Encode(nil), v.ShareA)
	is(t, "B's share", ristretto255.NewElement().ScalarMult(b, g).Encode(nil), v.ShareB)
	for name, k := range map[string]func() ([]byte, bool){
		"A's K": func() ([]byte, bool) { return multiply(a, v.ShareB) },
		"B's K": func() ([]byte, bool) { return multiply(b, v.ShareA) },
	} {
		got, ok := k()
		if !ok {
			t.Fatalf("%s is refused", name)
		}
		is(t, name, got, v.K)
		is(t, "the key of "+name, sessionKey(v.SID, got, v.ShareA, v.ADa, v.ShareB, v.ADb), v.ISK)
	}
	s := scalar(v.Multiply.S)
	got, ok := multiply(s, v.Multiply.X)
	if !ok {
		t.Error("a valid element is refused")
	}
	is(t, "the product", got, v.Multiply.Result)
	if len(v.Multiply.Invalid) != 2 {
		t.Fatalf("%d invalid elements", len(v.Multiply.Invalid))
	}
	for _, bad := range v.Multiply.Invalid {
		if got, ok := multiply(s, bad); ok {
			t.Errorf("%x is taken, the product is %x", []byte(bad), got)
		}
	}
}

func TestPrependLen(t *testing.T) {
	for n, want := range map[int]string{0: "00", 127: "7f", 128: "8001", 300: "ac02"} {
		got := prependLen(nil, make([]byte, n))
		if prefix := hex.EncodeToString(got[:len(got)-n]); prefix != want {
			t.Errorf("the length %d is %s, want %s", n, prefix, want)
		}
	}
	if got := string(lvCat([]byte("1234"), []byte("5"), nil, []byte("678"))); got != "\x041234\x015\x00\x03678" {
		t.Errorf("lv_cat is %q", got)
	}
}
