package csitest_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

// TestViolations does what a caller must not. Each thing is refused, recorded as what it is, and has no effect: the volume goes
// up and down afterwards.
func TestViolations(t *testing.T) {
	testenv.Require(t, testenv.Root)
	type state struct {
		*caller
		v *csi.Volume
	}
	clean := csitest.All()
	for name, test := range map[string]struct {
		o    func(*csitest.Options)
		do   func(s state) error
		kind string
		code codes.Code
	}{
		"DeleteWhileAttached": {
			do: func(s state) error {
				return first(s.attach(s.v), s.remove(s.v), s.detach(s.v))
			}, kind: "delete while attached", code: codes.FailedPrecondition,
		},
		"DetachWhileStaged": {
			do: func(s state) error {
				_, err := s.NodeStageVolume(s.t.Context(), s.stageRequest(s.v, s.attach(s.v)))
				return first(err, s.detach(s.v), s.unstage(s.v))
			}, kind: "detach while staged", code: codes.FailedPrecondition,
		},
		"DetachEverywhereWhileStaged": {
			do: func(s state) error {
				_, err := s.NodeStageVolume(s.t.Context(), s.stageRequest(s.v, s.attach(s.v)))
				_, detach := s.ControllerUnpublishVolume(s.t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: s.v.GetVolumeId()})
				return first(err, detach, s.unstage(s.v))
			}, kind: "detach while staged", code: codes.FailedPrecondition,
		},
		"DetachWhilePublished": {
			o: func(o *csitest.Options) { o.Stage = false },
			do: func(s state) error {
				_, err := s.NodePublishVolume(s.t.Context(), s.publishRequest(s.v, s.attach(s.v)))
				return first(err, s.detach(s.v), s.unpublish(s.v))
			}, kind: "detach while published", code: codes.FailedPrecondition,
		},
		"DetachUnderAMount": {
			do: func(s state) error {
				s.up(s.v)
				other := bound(s.t, s.target())
				err := first(s.unpublish(s.v), unix.Unmount(s.staging(), 0), s.detach(s.v))
				return first(err, unix.Unmount(other, 0))
			}, kind: "detach under a mount", code: codes.FailedPrecondition,
		},
		"UnstageWhilePublished": {
			do: func(s state) error {
				s.up(s.v)
				return first(s.unstage(s.v), s.unpublish(s.v))
			}, kind: "unstage while published", code: codes.FailedPrecondition,
		},
		"UnstageUnderAMount": {
			do: func(s state) error {
				s.up(s.v)
				other := bound(s.t, s.target())
				return first(s.unpublish(s.v), s.unstage(s.v), unix.Unmount(other, 0))
			}, kind: "unstage under a mount", code: codes.FailedPrecondition,
		},
		"StageWithoutAttach": {
			do: func(s state) error {
				_, err := s.NodeStageVolume(s.t.Context(), s.stageRequest(s.v, nil))
				return err
			}, kind: "not attached", code: codes.FailedPrecondition,
		},
		"PublishWithoutStage": {
			do: func(s state) error {
				_, err := s.NodePublishVolume(s.t.Context(), s.publishRequest(s.v, s.attach(s.v)))
				return err
			}, kind: "publish without stage", code: codes.FailedPrecondition,
		},
		"PublishAfterAReboot": {
			do: func(s state) error {
				at := s.up(s.v)
				s.m.Reboot()
				_, err := s.NodePublishVolume(s.t.Context(), s.publishRequest(s.v, at))
				return err
			}, kind: "publish without stage", code: codes.FailedPrecondition,
		},
		"ContextOfAnEarlierAttachment": {
			do: func(s state) error {
				at := s.attach(s.v)
				err := s.detach(s.v)
				s.attach(s.v)
				_, stage := s.NodeStageVolume(s.t.Context(), s.stageRequest(s.v, at))
				return first(err, stage)
			}, kind: "publish context", code: codes.InvalidArgument,
		},
		"ContextOfAnotherVolume": {
			do: func(s state) error {
				r := s.attachRequest(s.v)
				r.VolumeContext = s.create("other").GetVolumeContext()
				_, err := s.ControllerPublishVolume(s.t.Context(), r)
				return err
			}, kind: "volume context", code: codes.InvalidArgument,
		},
		"NoContext": {
			do: func(s state) error {
				r := s.attachRequest(s.v)
				r.VolumeContext = nil
				_, err := s.ControllerPublishVolume(s.t.Context(), r)
				return err
			}, kind: "volume context", code: codes.OK,
		},
		"SecondTarget": {
			do: func(s state) error {
				r := s.publishRequest(s.v, s.up(s.v))
				r.TargetPath += "2"
				_, err := s.NodePublishVolume(s.t.Context(), r)
				return err
			}, kind: "second target", code: codes.FailedPrecondition,
		},
		"SecondStage": {
			do: func(s state) error {
				r := s.stageRequest(s.v, s.up(s.v))
				r.StagingTargetPath = s.t.TempDir()
				_, err := s.NodeStageVolume(s.t.Context(), r)
				return err
			}, kind: "different arguments", code: codes.AlreadyExists,
		},
		"PublishAgainReadonly": {
			do: func(s state) error {
				r := s.publishRequest(s.v, s.up(s.v))
				r.Readonly = true
				_, err := s.NodePublishVolume(s.t.Context(), r)
				return err
			}, kind: "different arguments", code: codes.AlreadyExists,
		},
		"UnstageElsewhere": {
			do: func(s state) error {
				s.up(s.v)
				_, err := s.NodeUnstageVolume(s.t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: s.v.GetVolumeId(), StagingTargetPath: s.staging() + "2"})
				return err
			}, kind: "different arguments", code: codes.InvalidArgument,
		},
		"StageOnFiles": {
			do: func(s state) error {
				r := s.stageRequest(s.v, s.attach(s.v))
				file := s.staging() + "/file"
				err := os.WriteFile(file, nil, 0o600)
				_, stage := s.NodeStageVolume(s.t.Context(), r)
				return first(err, stage, os.Remove(file))
			}, kind: "path", code: codes.FailedPrecondition,
		},
		"NoStagingDirectory": {
			do: func(s state) error {
				r := s.stageRequest(s.v, s.attach(s.v))
				r.StagingTargetPath += "/deeper"
				_, err := s.NodeStageVolume(s.t.Context(), r)
				return err
			}, kind: "path", code: codes.FailedPrecondition,
		},
		"CreateWithAnotherSize": {
			do: func(s state) error {
				r := s.createRequest("one")
				r.CapacityRange.RequiredBytes *= 2
				_, err := s.CreateVolume(s.t.Context(), r)
				return err
			}, kind: "different arguments", code: codes.AlreadyExists,
		},
		"CreateWithOtherParameters": {
			do: func(s state) error {
				r := s.createRequest("one")
				r.Parameters = map[string]string{"a": "b"}
				_, err := s.CreateVolume(s.t.Context(), r)
				return err
			}, kind: "different arguments", code: codes.AlreadyExists,
		},
		"CreateWithALongName": {
			do: func(s state) error {
				_, err := s.CreateVolume(s.t.Context(), s.createRequest(strings.Repeat("x", 129)))
				return err
			}, kind: "size", code: codes.InvalidArgument,
		},
		"AfterDelete": {
			do: func(s state) error {
				v := s.create("other")
				err := s.remove(v)
				_, attach := s.ControllerPublishVolume(s.t.Context(), s.attachRequest(v))
				return first(err, attach)
			}, kind: "after delete", code: codes.NotFound,
		},
		"NoSecrets": {
			o: func(o *csitest.Options) { o.Secrets = map[string]string{"key": "word"} },
			do: func(s state) error {
				_, err := s.DeleteVolume(s.t.Context(), &csi.DeleteVolumeRequest{VolumeId: s.v.GetVolumeId()})
				return err
			}, kind: "secrets", code: codes.Unauthenticated,
		},
		"NotAnnounced": {
			o: func(o *csitest.Options) { o.Capacity = false },
			do: func(s state) error {
				_, err := s.GetCapacity(s.t.Context(), &csi.GetCapacityRequest{})
				return err
			}, kind: "not announced", code: codes.Unimplemented,
		},
		"ReadonlyNotAnnounced": {
			o: func(o *csitest.Options) { o.PublishReadonly = false },
			do: func(s state) error {
				r := s.attachRequest(s.v)
				r.Readonly = true
				_, err := s.ControllerPublishVolume(s.t.Context(), r)
				return err
			}, kind: "not announced", code: codes.InvalidArgument,
		},
		"AnotherCapability": {
			do: func(s state) error {
				r := s.attachRequest(s.v)
				r.VolumeCapability.AccessMode.Mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
				_, err := s.ControllerPublishVolume(s.t.Context(), r)
				return err
			}, kind: "capability", code: codes.InvalidArgument,
		},
		"ExpandOfflineWhilePublished": {
			o: func(o *csitest.Options) { o.ExpandOnline = false },
			do: func(s state) error {
				s.up(s.v)
				_, err := s.ControllerExpandVolume(s.t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: s.v.GetVolumeId(), CapacityRange: &csi.CapacityRange{RequiredBytes: 2 << 20}})
				return err
			}, kind: "expand while published", code: codes.FailedPrecondition,
		},
		"ExpandAtTheNodeFirst": {
			do: func(s state) error {
				s.up(s.v)
				_, err := s.NodeExpandVolume(s.t.Context(), &csi.NodeExpandVolumeRequest{VolumeId: s.v.GetVolumeId(), VolumePath: s.target(), CapacityRange: &csi.CapacityRange{RequiredBytes: 2 << 20}})
				return err
			}, kind: "expand at the node first", code: codes.OutOfRange,
		},
		"OtherZone": {
			do: func(s state) error {
				r := s.createRequest("far")
				r.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"csitest/zone": "b"}}}}
				made, err := s.CreateVolume(s.t.Context(), r)
				_, attach := s.ControllerPublishVolume(s.t.Context(), s.attachRequest(made.GetVolume()))
				return first(err, attach)
			}, kind: "topology", code: codes.FailedPrecondition,
		},
		"SnapshotNotReady": {
			o: func(o *csitest.Options) { o.ReadyAfter = 2 },
			do: func(s state) error {
				snap, err := s.CreateSnapshot(s.t.Context(), &csi.CreateSnapshotRequest{SourceVolumeId: s.v.GetVolumeId(), Name: "snap"})
				r := s.createRequest("copy")
				r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snap.GetSnapshot().GetSnapshotId()}}}
				_, create := s.CreateVolume(s.t.Context(), r)
				return first(err, create)
			}, kind: "snapshot not ready", code: codes.FailedPrecondition,
		},
		"SnapshotOfAnotherVolume": {
			do: func(s state) error {
				_, err := s.CreateSnapshot(s.t.Context(), &csi.CreateSnapshotRequest{SourceVolumeId: s.v.GetVolumeId(), Name: "snap"})
				_, again := s.CreateSnapshot(s.t.Context(), &csi.CreateSnapshotRequest{SourceVolumeId: s.create("other").GetVolumeId(), Name: "snap"})
				return first(err, again)
			}, kind: "different arguments", code: codes.AlreadyExists,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := clean
			o.MayViolate = true
			if test.o != nil {
				test.o(&o)
			}
			m := csitest.Start(t, o)
			c := call(t, m)
			s := state{caller: c, v: c.create("one")}
			err := test.do(s)
			if got := status.Code(err); got != test.code {
				t.Errorf("error %v, not %s", err, test.code)
			}
			found := m.Violations()
			if len(found) != 1 || found[0].Kind != test.kind {
				t.Errorf("violations %q, not one of %q", found, test.kind)
			}
			c.forgiving(s.v)
			if after := m.Violations(); len(after) != len(found) {
				t.Errorf("on the way down: %q", after[len(found):])
			}
		})
	}
}

// forgiving takes a volume down from wherever it is.
func (c *caller) forgiving(v *csi.Volume) {
	c.t.Helper()
	steps := []func(*csi.Volume) error{c.unpublish}
	if c.m.Options.Stage {
		steps = append(steps, c.unstage)
	}
	for _, step := range append(steps, c.detach, c.remove) {
		if err := step(v); err != nil {
			c.t.Error(err)
		}
	}
}

// first returns the first error, of values that may be anything else.
func first(values ...any) error {
	for _, v := range values {
		if err, ok := v.(error); ok && err != nil {
			return err
		}
	}
	return nil
}

// bound binds a directory to another place, as somebody may do behind everyone's back.
func bound(t *testing.T, dir string) string {
	t.Helper()
	at, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// TestInFlight makes a second call for a volume while one is in flight: a violation, unless the caller of the first has given
// it up.
func TestInFlight(t *testing.T) {
	testenv.Require(t, testenv.Root)
	o := csitest.All()
	o.MayViolate = true
	m := csitest.Start(t, o)
	c := call(t, m)
	v := c.create("one")
	for _, given := range []bool{true, false} {
		m.Faults.Set("ControllerPublishVolume", csitest.Before, csitest.Hang, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _, _ = c.ControllerPublishVolume(ctx, c.attachRequest(v)) })
		for len(m.Faults.Left()) > 0 {
			time.Sleep(time.Millisecond)
		}
		if given {
			cancel()
		}
		limited, end := context.WithTimeout(t.Context(), time.Minute) // so that it is not repeated
		_, err := c.DeleteVolume(limited, &csi.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
		end()
		// It may be the first to learn that the other one was given up.
		if c := status.Code(err); given && c != codes.OK && c != codes.Aborted || !given && c != codes.Aborted {
			t.Errorf("given up %t: %v", given, err)
		}
		kinds := []string{}
		for _, v := range m.Violations() {
			kinds = append(kinds, v.Kind)
		}
		if !given && !slices.Contains(kinds, "in flight") || given && len(kinds) > 0 {
			t.Errorf("given up %t: violations %q", given, kinds)
		}
		cancel()
		done.Wait()
		if err := c.remove(v); err != nil {
			t.Error(err)
		}
		v = c.create("one")
	}
}
