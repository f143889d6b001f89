package csi

import (
	"context"
	"path/filepath"
	"slices"
)

// networkFS are the file systems that several hosts can have mounted without harm, and whose syncfs(2) brings what was
// written to the server. Of a disk that nobody attaches another host could be next to mount it, at once; and a FUSE program
// may have a cache of its own, which it writes out when it is unmounted.
var networkFS = []string{"nfs", "nfs4", "cifs", "smb3", "ceph"}

// lingers tells whether a volume that was unmounted stays mounted below for a while, where there is no attachment that
// could stay: then the next mount costs no call. What was written is at the server when it returns true.
func (d *driver) lingers(ctx context.Context, v *vol) bool {
	rec, n := d.store.see(v)
	facts, known := d.conn.Last()
	if !known || attaches(facts) || rec.Hidden != "" || d.detachAfter(v) <= 0 || n.Phase != phasePublished || n.Doing != "" {
		return false
	}
	target := filepath.Join(n.Dir, "t")
	m, err := topmost(target)
	if err != nil || m == nil || !slices.Contains(d.lasting, m.FSType) || d.looks.alive(ctx, target) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.flush(ctx, rec.Name) }() // which hangs as long as the server does
	select {
	case err := <-done:
		return err == nil
	case <-ctx.Done():
		return false
	}
}
