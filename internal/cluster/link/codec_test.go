package link

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

func sampleHello() hello {
	return hello{
		Summary: cluster, min: 1, max: 3, instance: instance{3}, dial: 1 << 40, password: true,
		standing: Member, observed: netip.MustParseAddrPort("[2001:db8::1]:6783"),
	}
}

func TestHello(t *testing.T) {
	unexported := cmp.AllowUnexported(hello{})
	compare := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	spare := sampleHello()
	spare.Spare = true
	for _, want := range []hello{sampleHello(), spare, {min: 1, max: 1}} {
		b := want.encode()
		for _, tail := range []string{"", "of a later version"} {
			got, err := decodeHello(append(bytes.Clone(b), tail...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, unexported, compare); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		}
		for i := range b {
			if _, err := decodeHello(b[:i]); err == nil {
				t.Errorf("the first %d bytes are a hello", i)
			}
		}
	}
	zone := sampleHello()
	zone.observed = netip.MustParseAddrPort("[fe80::1%eth0]:1")
	if got, err := decodeHello(zone.encode()); err != nil || got.observed.String() != "[fe80::1]:1" {
		t.Errorf("%v, %v", got.observed, err)
	}
	for name, change := range map[string]func(*hello){
		"versions upside down": func(h *hello) { h.min = 9 },
		"a standing of 3":      func(h *hello) { h.standing = 3 },
	} {
		h := sampleHello()
		change(&h)
		if _, err := decodeHello(h.encode()); !errors.Is(err, errNoHello) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestJudge: whatever two hosts say, both come to the same, each from its side.
func TestJudge(t *testing.T) {
	var hellos []hello
	for _, c := range []record.Cluster{{}, {1}, {2}} {
		for _, password := range []bool{false, true} {
			for _, s := range []Standing{Unknown, Member, Removed} {
				for _, v := range [][2]uint16{{1, 1}, {1, 2}, {2, 3}} {
					for _, i := range []instance{{1}, {2}} {
						hellos = append(hellos, hello{Summary: Summary{Cluster: c}, min: v[0], max: v[1], password: password, standing: s, instance: i})
					}
				}
			}
		}
	}
	linked := 0
	for _, a := range hellos {
		for _, b := range hellos {
			for _, same := range []bool{false, true} {
				x, y := judge(a, b, same), judge(b, a, same)
				// Where each removed the other, each says that of itself.
				if x != y.mirror() && !(x == RemovedHere && y == RemovedHere) {
					t.Fatalf("%+v and %+v: %d, %d", a, b, x, y)
				}
				if x == 0 {
					linked++
					if needsProof(a, b) != needsProof(b, a) {
						t.Fatalf("%+v and %+v: one wants a proof", a, b)
					}
					if a.password && a.standing == Unknown && !needsProof(a, b) {
						t.Fatalf("%+v and %+v: no proof", a, b)
					}
				}
			}
		}
	}
	if linked == 0 {
		t.Error("no two hosts can have a link")
	}
}

func TestReasonsHaveWords(t *testing.T) {
	seen := map[string]Reason{}
	for r := WrongPassword; r <= Cut; r++ {
		text := (&RefusedError{Reason: r, Cause: errNoHello}).text()
		if other, twice := seen[text]; twice || text == "" || len(text) > 6 && text[:7] == "reason " {
			t.Errorf("reason %d is %q, as is %d", r, text, other)
		}
		seen[text] = r
		if r.mirror().mirror() != r {
			t.Errorf("reason %d seen from both sides is %d", r, r.mirror().mirror())
		}
	}
}

func FuzzFrame(f *testing.F) {
	for kind := range lengths {
		f.Add(frame{kind: frameType(kind), stream: 1, payload: make([]byte, lengths[kind][0])}.append(nil))
		f.Add(frame{kind: frameType(kind), payload: make([]byte, lengths[kind][1])}.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := readFrame(r)
		if err != nil {
			return
		}
		if again := got.append(nil); !bytes.Equal(again, b[:len(b)-r.Len()]) {
			t.Errorf("%x is encoded as %x", b, again)
		}
		if got.kind.known() && (len(got.payload) > MaxPacket || got.kind.ofStream() != (got.stream != 0)) {
			t.Errorf("%+v was let through", got)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(sampleHello().encode())
	f.Add(hello{min: 1, max: 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		again, err := decodeHello(h.encode())
		if err != nil || again != h {
			t.Errorf("%x is %+v, then %+v, %v", b, h, again, err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	var b bytes.Buffer
	_ = writeMessage(&b, messageRefuse, refusal(WrongPassword, 0))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(body) > maxMessage {
			t.Errorf("%d bytes", len(body))
		}
		if kind == messageRefuse {
			reason, _ := readRefusal(body)
			_ = (&RefusedError{Reason: reason.mirror(), Cause: errNoHello}).Error()
		}
	})
}
