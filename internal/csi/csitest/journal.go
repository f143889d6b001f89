package csitest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
)

// Violation is what a caller did that the specification forbids.
type Violation struct {
	RPC string
	// Kind is what it is in a few words, such as "detach while staged".
	Kind string
	Text string
	Time time.Time
}

func (v Violation) String() string { return fmt.Sprintf("%s: %s: %s", v.RPC, v.Kind, v.Text) }

// Call is one call of an RPC.
type Call struct {
	RPC string
	// Of is the volume that it is of, or the name of one.
	Of   string
	Time time.Time
}

// When is before or after an RPC has its effect.
type When string

// The two moments of a fault.
const (
	Before When = "before"
	After  When = "after"
)

// What is what a fault does.
type What struct {
	Kind string
	Code codes.Code
}

// The faults that need no code. A call that hangs does so until its caller gives up; late is one that hangs, and has its effect
// 300 ms after its caller has given up.
var (
	Hang  = What{Kind: "hang"}
	Late  = What{Kind: "late"}
	Crash = What{Kind: "crash"}
)

// Code is a fault that answers with a code.
func Code(c codes.Code) What { return What{"code", c} }

// Fault is one that is to come.
type Fault struct {
	RPC  string
	When When
	What What
	// Times is how often; -1 is always.
	Times int
	// Skip is how many calls it lets pass first.
	Skip int
}

// Faults are those of a driver that are to come. They outlive its process.
type Faults struct{ j *journal }

// Set has the next calls of an RPC fail, after what was set before.
func (f Faults) Set(rpc string, when When, what What, times int) {
	f.Add(Fault{RPC: rpc, When: when, What: what, Times: times})
}

// Add adds a fault.
func (f Faults) Add(fault Fault) {
	_ = f.j.faults(func(list []Fault) []Fault { return append(list, fault) })
}

// Clear forgets all faults that are to come.
func (f Faults) Clear() { _ = f.j.faults(func([]Fault) []Fault { return nil }) }

// Left are the faults that did not come yet.
func (f Faults) Left() (left []Fault) {
	_ = f.j.faults(func(list []Fault) []Fault { left = list; return list })
	return left
}

// journal is what a test and a driver tell each other, in files.
type journal struct {
	dir string
	mu  sync.Mutex
}

func (j *journal) append(name string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	f, err := os.OpenFile(filepath.Join(j.dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // the test is over, and its directory is gone
	}
	defer f.Close()
	_, _ = f.Write(append(text, '\n'))
}

func read[T any](j *journal, name string) (list []T) {
	f, err := os.Open(filepath.Join(j.dir, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var v T
		if json.Unmarshal(s.Bytes(), &v) == nil { // a last line may be torn by a kill
			list = append(list, v)
		}
	}
	return list
}

// faults changes the list of faults, one process at a time.
func (j *journal) faults(change func([]Fault) []Fault) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(j.dir, "faults"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil { //nolint:gosec // a descriptor
		return err
	}
	var list []Fault
	if err := json.NewDecoder(f).Decode(&list); err != nil && !isEmpty(f) {
		return err
	}
	before, _ := json.Marshal(list)
	after, err := json.Marshal(change(list))
	if err != nil || string(before) == string(after) {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(after, 0)
	return err
}

func isEmpty(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Size() == 0
}

// next takes the fault of this call, if there is one.
func (j *journal) next(rpc string, when When) (what What, ok bool) {
	if fi, err := os.Stat(filepath.Join(j.dir, "faults")); errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() <= 4 {
		return What{}, false // "null" or "[]": no need for a lock
	}
	_ = j.faults(func(list []Fault) []Fault {
		for i := range list {
			f := &list[i]
			switch {
			case f.RPC != rpc || f.When != when:
				continue
			case f.Skip > 0:
				f.Skip--
				continue
			}
			what, ok = f.What, true
			if f.Times > 0 {
				f.Times--
			}
			if f.Times == 0 {
				list = append(list[:i:i], list[i+1:]...)
			}
			break
		}
		return list
	})
	return what, ok
}
