package tunnel

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const answerOfProcess = `private_key=` + one + `
listen_port=6784
public_key=` + two + `
preshared_key=` + one + `
protocol_version=1
endpoint=[2001:db8::1]:6784
last_handshake_time_sec=1800000000
last_handshake_time_nsec=5
tx_bytes=7
rx_bytes=8
persistent_keepalive_interval=25
allowed_ip=10.40.2.0/24
allowed_ip=10.40.1.0/24
public_key=` + one + `
preshared_key=` + zero + `
endpoint=10.9.0.2:1
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
`

const (
	zero = "0000000000000000000000000000000000000000000000000000000000000000"
	one  = "0100000000000000000000000000000000000000000000000000000000000000"
	two  = "0200000000000000000000000000000000000000000000000000000000000000"
)

func TestParseState(t *testing.T) {
	got, err := parseState([]byte(answerOfProcess))
	if err != nil {
		t.Fatal(err)
	}
	want := State{Config: Config{Private: Key{1}, Port: 6784, Peers: map[Key]Peer{
		{2}: {
			Shared: Key{1}, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:6784"), Keepalive: 25 * time.Second,
			Allowed: []netip.Prefix{netip.MustParsePrefix("10.40.1.0/24"), netip.MustParsePrefix("10.40.2.0/24")},
		},
		{1}: {Endpoint: netip.MustParseAddrPort("10.9.0.2:1")},
	}}, Seen: map[Key]Seen{
		{2}: {Handshake: time.Unix(1800000000, 5), Sent: 7, Received: 8, LastEndpoint: netip.MustParseAddrPort("[2001:db8::1]:6784")},
		{1}: {LastEndpoint: netip.MustParseAddrPort("10.9.0.2:1")},
	}}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, wrong := range []string{"private_key=12\n", "listen_port=70000\n", "endpoint=x\n", "allowed_ip=10.0.0.0/99\n", "public_key=" + one + "00\n"} {
		if _, err := parseState([]byte(wrong)); err == nil {
			t.Errorf("%q is read", wrong)
		} else if strings.Contains(err.Error(), "12") {
			t.Errorf("%v shows a key", err)
		}
	}
}

// fake notes what a device is told.
type fake struct{ said []string }

func (f *fake) State() (State, error) { return State{}, nil }
func (f *fake) set(e edits) error     { f.said = append(f.said, e.text()); return nil }
func (f *fake) Kind() string          { return "" }
func (f *fake) Close() error          { return nil }

func TestApply(t *testing.T) {
	now, err := parseState([]byte(answerOfProcess))
	if err != nil {
		t.Fatal(err)
	}
	now.Private[31] = 64 // as the device would have it
	now.Private[0] = 0
	want := Config{Private: now.Private, Port: now.Port, Peers: map[Key]Peer{{1}: now.Peers[Key{1}], {2}: now.Peers[Key{2}]}}
	f := &fake{}
	if n, err := Apply(f, now, want); n != 0 || err != nil || len(f.said) > 0 {
		t.Errorf("what stands there is told again: %d, %v, %q", n, err, f.said)
	}
	// An endpoint that is not known is not taken away; a prefix goes from one peer to the other.
	a, b := want.Peers[Key{1}], want.Peers[Key{2}]
	b.Endpoint = netip.AddrPort{}
	a.Allowed, b.Allowed = b.Allowed[1:], b.Allowed[:1]
	want.Peers = map[Key]Peer{{1}: a, {2}: b, {3}: {Endpoint: netip.MustParseAddrPort("10.9.0.3:6784")}}
	if n, err := Apply(f, now, want); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	text := f.said[0]
	loses := strings.Index(text, "public_key="+two+"\nreplace_allowed_ips=true\nallowed_ip=10.40.1.0/24\n")
	gets := strings.Index(text, "public_key="+one+"\nreplace_allowed_ips=true\nallowed_ip=10.40.2.0/24\n")
	if loses < 0 || gets < loses {
		t.Errorf("the device is told:\n%s", text)
	}
	want.Peers = map[Key]Peer{{2}: now.Peers[Key{2}]}
	if _, err := Apply(f, now, want); err != nil || !strings.Contains(f.said[1], "public_key="+one+"\nremove=true\n") {
		t.Errorf("%v\n%s", err, f.said[1])
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(answerOfProcess))
	f.Add([]byte("public_key=\n=\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		s, err := parseState(answer)
		if err == nil && len(s.Peers) != len(s.Seen) {
			t.Errorf("%d peers, of which %d were seen", len(s.Peers), len(s.Seen))
		}
	})
}
