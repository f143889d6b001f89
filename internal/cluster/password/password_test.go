package password

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestDerive(t *testing.T) {
	k, err := Derive("correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	// As Debian's argon2(1) has it: echo -n PASSWORD | argon2 "remora cluster password 1" -id -t 3 -m 16 -p 4 -l 32
	if got, want := hex.EncodeToString(k[:]), "26902091d0765ae392220916d9fd0d6db18d3128b3718c488986a4232e6e5c68"; got != want {
		t.Errorf("the key is %s, want %s", got, want)
	}
	for _, wrong := range []string{"", strings.Repeat("x", MaxLength+1)} {
		if _, err := Derive(wrong); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%d bytes: %v", len(wrong), err)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k)
	shown := log.String() + fmt.Sprintf("%v %+v %#v %s %q", k, k, k, k, k)
	if strings.Contains(shown, hex.EncodeToString(k[:4])) || strings.Contains(shown, fmt.Sprint(k[0])) || !strings.Contains(shown, "[password]") {
		t.Errorf("the key is shown: %s", shown)
	}
}

func TestGenerate(t *testing.T) {
	form := regexp.MustCompile(`^([bdfghjklmnprstvz][aiou][bdfghjklmnprstvz][aiou][bdfghjklmnprstvz]-){4}[a-z]{5}$`)
	if bits := generatedWords * math.Log2(math.Pow(float64(len(consonants)), 3)*math.Pow(float64(len(vowels)), 2)); bits < 80 {
		t.Errorf("%v bits", bits)
	}
	seen := map[string]bool{}
	letters := map[rune]bool{}
	for range 500 {
		p := Generate()
		if !form.MatchString(p) || seen[p] {
			t.Fatalf("%q", p)
		}
		seen[p] = true
		for _, r := range p {
			letters[r] = true
		}
	}
	if len(letters) != len(consonants)+len(vowels)+1 {
		t.Errorf("%d letters are used", len(letters))
	}
}

func addr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func wrong() bool { return false }
func right() bool { return true }

func TestLimitOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		// Ten minutes of guessing as fast as it goes, beside somebody who knows the password.
		guesses := 0
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(100 * time.Millisecond) {
			checked := false
			if ok, wait := l.Attempt(addr(1), func() bool { checked = true; return false }); ok || checked == (wait > 0) {
				t.Fatalf("%v, checked: %v, wait %v", ok, checked, wait)
			}
			if checked {
				guesses++
			}
			if ok, wait := l.Attempt(addr(2), right); !ok {
				t.Fatalf("the other address waits %v", wait)
			}
		}
		if guesses < 10 || guesses > 20 {
			t.Errorf("%d guesses in ten minutes", guesses)
		}
		if l.Failed() != uint64(guesses) {
			t.Errorf("%d are counted, of %d", l.Failed(), guesses)
		}
		if wait := l.Wait(addr(1)); wait <= 0 || wait > longestDelay {
			t.Errorf("it waits %v", wait)
		}
		time.Sleep(longestDelay)
		if ok, _ := l.Attempt(addr(1), right); !ok {
			t.Error("the right password is refused after the wait")
		}
		if ok, wait := l.Attempt(addr(1), wrong); ok || wait > 0 || l.Wait(addr(1)) > firstDelay {
			t.Errorf("after a right one the delay is %v", l.Wait(addr(1)))
		}
	})
}

func TestLimitOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		next := 0
		for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(time.Millisecond) {
			next++
			l.Attempt(addr(next), wrong)
		}
		if n := l.Failed(); n < 190 || n > 220 {
			t.Errorf("%d guesses from many addresses in 20 s", n)
		}
		for range perSecond {
			next++
			l.Attempt(addr(next), wrong)
		}
		if ok, wait := l.Attempt(addr(0), right); ok || wait > time.Second {
			t.Errorf("while they go on: %v, wait %v", ok, wait)
		}
		time.Sleep(time.Second)
		if ok, _ := l.Attempt(addr(0), right); !ok {
			t.Error("after them the right password is refused")
		}
	})
}

func TestLimiterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		for i := range 3 * maxAddresses {
			if _, wait := l.Attempt(addr(i), wrong); wait > 0 {
				t.Fatalf("address %d waits %v", i, wait)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(l.from); n > maxAddresses {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

func TestOneAddress(t *testing.T) {
	for _, same := range [][2]string{
		{"2001:db8::1", "2001:db8::ffff:1"}, {"10.0.0.1", "::ffff:10.0.0.1"}, {"fe80::1%eth0", "fe80::2%eth1"},
	} {
		if a, b := source(netip.MustParseAddr(same[0])), source(netip.MustParseAddr(same[1])); a != b {
			t.Errorf("%v and %v are counted apart", a, b)
		}
	}
	if source(netip.MustParseAddr("10.0.0.1")) == source(netip.MustParseAddr("10.0.0.2")) || source(netip.Addr{}).IsValid() {
		t.Error("two addresses are one")
	}
}

// BenchmarkDerive is what a launch costs.
func BenchmarkDerive(b *testing.B) {
	for b.Loop() {
		if _, err := Derive("correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
	}
}
