package address

import (
	"os"
	"testing"
)

// FuzzLedger opens whatever may lie on a disk: that is an error or a list of addresses, which is the same when it is
// opened again and when it is written anew.
func FuzzLedger(f *testing.F) {
	l := ledger{}
	whole := append(l.frame([]byte("give 1 10.0.0.1 1 c d\nfree 1 10.0.0.2 5\n")), (&ledger{seq: 1}).frame([]byte("left 2\n"))...)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(l.frame([]byte("give 1 x 1 c\n")))
	f.Fuzz(func(t *testing.T, data []byte) {
		root, err := os.OpenRoot(t.TempDir())
		must(t, err)
		defer root.Close()
		must(t, root.WriteFile(ledgerName, data, 0o600))
		c := Config{Root: root, Store: newMemory(hostNumber(0))}
		var before []Address
		for i := range 3 {
			a, err := New(c)
			if err != nil {
				if i > 0 {
					t.Fatal(err)
				}
				return
			}
			out := a.Addresses()
			if i > 0 && len(out) != len(before) {
				t.Fatalf("%v, before %v", out, before)
			}
			before = out
			a.ledger.broken = true // so that all is written anew
			must(t, a.ledger.append([]byte("\n")))
			must(t, a.Close())
		}
	})
}
