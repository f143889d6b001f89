package blocktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// takenByForce: who takes the disk has it, and who lost it sees that.
func takenByForce(s *stage) {
	one, two := s.host(), s.host()
	one.mustCreate("data")
	at := one.mustMount("data")
	s.write(at, "f", "written before")
	held, err := os.OpenFile(filepath.Join(at, "f"), os.O_RDWR, 0) // as a container
	if err != nil {
		s.Fatal(err)
	}
	defer held.Close()

	err = two.driver.(volume.Attacher).Attach(s.Context(), "data", false)
	s.wantErr(err, errdefs.ErrInUse, one.ID)
	if err := two.driver.(volume.Attacher).Attach(s.Context(), "data", true); err != nil {
		s.Fatalf("attach by force: %v", err)
	}
	where := two.mustMount("data")
	s.mustRead(where, "f", "written before")
	s.write(where, "g", "of the second")

	s.eventually("the first host has nothing mounted", func() bool { return len(one.mounts()) == 0 })
	state := fmt.Sprint(one.inspect("data").Status["state"])
	if !strings.Contains(state, "taken from this host") {
		s.Errorf("state on the host that lost it is %q", state)
	}
	s.eventually("the first host knows who has it", func() bool {
		return strings.Contains(fmt.Sprint(one.inspect("data").Status["state"]), two.ID)
	})
	s.wantErr(one.driver.(volume.Looker).Look(s.Context(), "data", at), errdefs.ErrUnavailable, "taken from this host")
	if _, err := os.Stat(filepath.Join(at, "f")); !errors.Is(err, os.ErrNotExist) {
		s.Errorf("below the mountpoint that was: %v", err)
	}
	_, err = one.mount("data")
	s.wantErr(err, errdefs.ErrInUse, two.ID)
	// What the container still writes reaches nobody.
	_, _ = held.WriteAt([]byte("LOST LOST LOST"), 0)
	_ = held.Sync()
	s.mustRead(where, "f", "written before")
	_ = held.Close()
	one.mustUnmount("data")
	if got := fmt.Sprint(one.inspect("data").Status["state"]); strings.Contains(got, "taken") {
		s.Errorf("state after the unmount is %q", got)
	}
	two.mustUnmount("data")
	two.detached()
	s.mustRead(one.mustMount("data"), "g", "of the second")
	one.mustUnmount("data")
}

// jobOutlivesCall: a call comes back in time, and the next one finds what it began.
func jobOutlivesCall(s *stage) {
	h := s.host()
	h.mustCreate("data")
	release := make(chan struct{})
	var attached atomic.Int32
	h.faults.Set(func(op string) error {
		if op == "Attach" {
			attached.Add(1)
			<-release
		}
		return nil
	}, nil)
	if err := os.MkdirAll(h.target("data"), 0o700); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), 4*time.Second) // the core's margin is three
	defer cancel()
	_, err := h.driver.Mount(ctx, "data", h.target("data"))
	s.wantErr(err, errdefs.ErrUnavailable, "attach", "going on", "remora jobs")
	if ctx.Err() != nil {
		s.Error("the call came back when its time was over")
	}
	jobs := h.driver.(volume.Worker).Jobs()
	if len(jobs) != 1 || jobs[0].Kind != "attach" || jobs[0].Object != "data" || jobs[0].State == "" {
		s.Errorf("jobs are %+v", jobs)
	}
	if job := fmt.Sprint(h.inspect("data").Status["job"]); !strings.Contains(job, "attach") {
		s.Errorf("status shows the job %q", job)
	}
	done := make(chan error, 1)
	go func() {
		_, err := h.mount("data")
		done <- err
	}()
	close(release)
	if err := <-done; err != nil {
		s.Fatalf("the mount that joined: %v", err)
	}
	if n := attached.Load(); n != 1 { // a slow cloud may be asked for it after the first call came back
		s.Errorf("attached %d times", n)
	}
	h.mustUnmount("data")
	if jobs := h.driver.(volume.Worker).Jobs(); len(jobs) > 1 {
		s.Errorf("jobs after it: %+v", jobs)
	}
}

// trash: what was removed can be brought back, with its data, and its name is free meanwhile.
func trash(s *stage) {
	h, other := s.host(), s.host()
	h.mustCreate("data")
	s.write(h.mustMount("data"), "f", "old")
	h.mustUnmount("data")
	tr := h.driver.(volume.Trasher)
	if err := tr.Trash(s.Context(), "data"); err != nil {
		s.Fatal(err)
	}
	time.Sleep(s.Lag)
	_, err := other.mount("data")
	s.wantErr(err, errdefs.ErrNotFound)
	h.mustCreate("data")
	s.write(h.mustMount("data"), "f", "new")
	h.mustUnmount("data")
	in, err := tr.Trashed(s.Context())
	if err != nil || len(in) != 1 || in[0].Name != "data" {
		s.Fatalf("trash has %v, %v", in, err)
	}
	s.wantErr(tr.Restore(s.Context(), in[0].ID, "data"), errdefs.ErrExists)
	if err := tr.Restore(s.Context(), in[0].ID, "old"); err != nil {
		s.Fatal(err)
	}
	s.mustRead(h.mustMount("old"), "f", "old")
	h.mustUnmount("old")
	s.mustRead(h.mustMount("data"), "f", "new")
	h.mustUnmount("data")
	h.detached()
	if err := tr.Trash(s.Context(), "old"); err != nil {
		s.Fatal(err)
	}
	in, _ = tr.Trashed(s.Context())
	if err := tr.Purge(s.Context(), in[0].ID); err != nil {
		s.Fatal(err)
	}
	s.wantErr(tr.Purge(s.Context(), in[0].ID), errdefs.ErrNotFound)
	h.mustRemove("data")
	s.noneLeft(h)
}
