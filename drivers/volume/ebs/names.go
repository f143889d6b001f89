package ebs

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// names are those under which disks are attached to this instance. EC2 wants each once; which
// are taken is known of the disks that we attach, and asked for only where another tool's is hit.
type names struct {
	dev string

	mu      sync.Mutex
	taken   map[string]string    // name → disk, "" where it is somebody's
	resting map[string]time.Time // until when a name is better not used
}

// rest is for how long a name is left alone that was refused, or just given back: EC2 has been
// seen to hang in "attaching" over a name that it had not quite freed.
const rest = 5 * time.Minute

// allNames are the names that EC2 has for further disks: those that it recommends, and then the
// large range that REX-Ray and the CSI driver use.
func allNames() (few, many []string) {
	for c := 'f'; c <= 'p'; c++ {
		few = append(few, "xvd"+string(c))
	}
	for _, first := range "bcd" {
		for c := 'a'; c <= 'x'; c++ {
			many = append(many, "xvd"+string(first)+string(c))
		}
	}
	return few, many
}

// take chooses a name for a disk, by lot.
func (n *names) take(disk string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.taken == nil {
		n.taken, n.resting = map[string]string{}, map[string]time.Time{}
	}
	n.drop(disk)
	few, many := allNames()
	for _, patient := range []bool{true, false} {
		for _, all := range [][]string{few, many} {
			for _, i := range rand.Perm(len(all)) {
				if name := all[i]; n.isFree(name, patient) {
					n.taken[name] = disk
					return "/dev/" + name, nil
				}
			}
		}
	}
	return "", errdefs.Errorf(errdefs.ErrInvalid, "all %d names that EC2 has for disks of an instance are in use", len(few)+len(many))
}

func (n *names) isFree(name string, patient bool) bool {
	if _, ok := n.taken[name]; ok {
		return false
	}
	if until, ok := n.resting[name]; ok && time.Now().Before(until) {
		return !patient
	}
	for _, here := range []string{name, "sd" + strings.TrimPrefix(name, "xvd")} {
		if _, err := os.Lstat(filepath.Join(n.dev, here)); err == nil {
			return false
		}
	}
	return true
}

// drop forgets the name of a disk, and returns it. The caller has the lock.
func (n *names) drop(disk string) string {
	for name, d := range n.taken {
		if d == disk && disk != "" {
			delete(n.taken, name)
			return name
		}
	}
	return ""
}

// free gives the name of a disk back, used or not.
func (n *names) free(disk string, used bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name := n.drop(disk); name != "" && used {
		n.resting[name] = time.Now().Add(rest)
	}
}

// refused notes that a name is somebody's.
func (n *names) refused(disk, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(disk)
	n.resting[bare(name)] = time.Now().Add(rest)
}

// learn notes the name of a disk that is attached here.
func (n *names) learn(disk, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[bare(name)] = disk
}

// bare is what /dev/sdf and xvdf have in common.
func bare(name string) string {
	name = strings.TrimPrefix(name, "/dev/")
	return "xvd" + strings.TrimPrefix(strings.TrimPrefix(name, "xvd"), "sd")
}
