// Package backup keeps backups of volumes in repositories: a directory, S3 or a server with
// SFTP. A repository is encrypted and holds what is alike once; its format and its code are
// those of kopia, which only this package knows, so that another could take its place.
//
// Several processes and hosts may use one repository at a time. A process that is killed leaves
// nothing that others have to wait for, and no backup that is half there: a backup is seen when
// all of it is stored.
package backup

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/remora-plugins/remora/internal/config"
)

// Place is a repository, and what this host needs to use it.
type Place struct {
	config.Repository
	// Dir is a directory of this repository's own for what can be made anew: a cache, and the
	// file by which kopia finds what it opens.
	Dir string
	// Host is the name under which backups of this host are found.
	Host string

	login      time.Duration // 0 is loginTime
	stall      time.Duration // 0 is what the configuration says, or stallTime
	checkpoint time.Duration // 0 is checkpointTime

	// While it is mended, hidden are the blobs that are not to be seen, and mended those that
	// are to be seen so.
	hidden []blob.ID
	mended map[blob.ID][]byte
}

// parallel is how many files are read or written at a time: as many as there are processors,
// and more where each waits for a server.
func (p Place) parallel() int {
	if p.Parallel > 0 {
		return p.Parallel
	}
	if p.URL.Scheme == config.SchemeFile {
		return runtime.NumCPU()
	}
	return max(runtime.NumCPU(), remoteParallel)
}

const remoteParallel = 4

// bulkGC is the percentage by which the heap may grow between collections while much data goes
// through large buffers that are used again. It costs little then, and saves a sixth.
const bulkGC = 50

var bulk struct {
	sync.Mutex
	n   int
	was int
}

// frugal has the process use less memory until what it returns is called.
func frugal() (end func()) {
	bulk.Lock()
	defer bulk.Unlock()
	if bulk.n++; bulk.n == 1 {
		if bulk.was = debug.SetGCPercent(bulkGC); bulk.was >= 0 && bulk.was < bulkGC {
			debug.SetGCPercent(bulk.was)
		}
	}
	return func() {
		bulk.Lock()
		defer bulk.Unlock()
		if bulk.n--; bulk.n == 0 {
			debug.SetGCPercent(bulk.was)
		}
	}
}

// Kind is what a volume holds, by which its files are cut into the pieces that are stored once.
type Kind string

const (
	// KindFiles is for files that are written whole, cut where their content says.
	KindFiles Kind = "files"
	// KindDatabase is for files that are changed in their middle, such as those of databases,
	// cut into small pieces of one size.
	KindDatabase Kind = "database"
	// KindBlock is for images of disks, cut like those.
	KindBlock Kind = "block"
)

// Kinds returns every kind.
func Kinds() []Kind { return []Kind{KindFiles, KindDatabase, KindBlock} }

// Backup is one backup of one volume.
type Backup struct {
	// ID is unique in its repository.
	ID     string
	Host   string
	Pool   string
	Volume string
	Kind   Kind
	// Started and Ended are when it was made; what lies in it is as it was at Started, if
	// PointInTime says so, and otherwise as each file was between the two.
	Started     time.Time
	Ended       time.Time
	PointInTime bool
	// Size is that of all files, Files how many there are.
	Size  int64
	Files int64
	// Skipped are how many devices, sockets and pipes are not in it.
	Skipped int64
	// Stored is what was added to the repository; Create alone tells it.
	Stored int64
	Labels map[string]string
}

// Progress tells how far a call has come, in bytes. Total is 0 while it is not known.
type Progress struct {
	Done, Total int64
}

// tick is how often progress is told.
const tick = 250 * time.Millisecond

// follow tells progress until the function that it returns is called, from one goroutine.
func follow(tell func(Progress), now func() Progress) (stop func()) {
	if tell == nil {
		return func() {}
	}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(tick)
		defer every.Stop()
		for {
			select {
			case <-end:
				tell(now())
				return
			case <-every.C:
				tell(now())
			}
		}
	}()
	return func() {
		close(end)
		<-done
	}
}
