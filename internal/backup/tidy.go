package backup

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/kopia/kopia/repo/encryption"
	"golang.org/x/sys/unix"
)

// tidy gives back the memory that a piece of work took, for which the runtime would take minutes.
// What lies in a pool goes at the second collection.
func tidy() {
	runtime.GC()
	emptyBuffers()
	debug.FreeOSMemory()
}

const (
	// bufferSize is that of most of the buffers that kopia keeps for the next who needs some. It
	// keeps up to 128 MiB of them for ever.
	bufferSize = 64 << 10
	// fewNew is after how many new ones no old one is expected: others may be at work meanwhile.
	fewNew = 4
	// wholeSize and wholeLargeSize are for its large buffers, one or two for each processor, of
	// 8 and 16 MiB.
	wholeSize, wholeLargeSize = 8 << 20, 9 << 20
)

// emptyBuffers gives the memory of these buffers back to the system. To forget them is not possible,
// but who holds one may do with its memory as he likes: it takes none until it is used again.
func emptyBuffers() {
	type taken interface{ Close() }
	var all []taken
	defer func() {
		for _, b := range all {
			b.Close()
		}
	}()
	piece := make([]byte, bufferSize)
	for fresh := 0; fresh < fewNew; {
		b := bufferOf(encryption.Encryptor.Encrypt)
		if allocates(func() { b.Append(piece) }, bufferSize) {
			fresh++
			continue // it is not returned, or there were more each time
		}
		for _, s := range b.Bytes().Slices {
			empty(s)
		}
		all = append(all, b)
	}
	for _, size := range []int{wholeSize, wholeLargeSize} {
		for range runtime.NumCPU() {
			b := bufferOf(encryption.Encryptor.Encrypt)
			var s []byte
			if allocates(func() { s = b.MakeContiguous(size) }, uint64(size)) {
				break
			}
			empty(s)
			all = append(all, b)
		}
	}
}

// bufferOf returns a buffer of the type that a function writes to. Only within kopia it has a name.
func bufferOf[E, From, To any](func(E, From, []byte, *To) error) *To { return new(To) }

// empty gives the whole pages of b back to the system. They are zero when they are next looked at.
func empty(b []byte) {
	b = b[:cap(b)]
	_ = unix.Madvise(b[:len(b)&^(unix.Getpagesize()-1)], unix.MADV_DONTNEED) // or they stay
}

// allocates tells whether something takes new memory, so much at least.
func allocates(do func(), size uint64) bool {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	do()
	metrics.Read(sample)
	return sample[0].Value.Uint64()-before >= size
}
