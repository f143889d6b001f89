package conn

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func no() *wrapperspb.BoolValue { return wrapperspb.Bool(false) }

// The secrets of the tests.
const (
	password = `pa"ss/w&rd`
	token    = "dG9rZW4tb2YtdGhlLWRyaXZlcg=="
	flag     = "password=sesame-open"
)

// TestSecretsAreNowhere has a driver repeat in its answers what it must not, then and later.
func TestSecretsAreNowhere(t *testing.T) {
	var log bytes.Buffer
	text := fmt.Sprintf("exec: mount -o %s -p %s: %q %s %s; opened with sesame-open; token %s", flag, password, password,
		url.QueryEscape(password), base64.StdEncoding.EncodeToString([]byte(password)), token)
	d := start(t, &server{
		name: "a.example.org",
		create: func(context.Context, *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
			return nil, status.Error(codes.Internal, text)
		},
		attach: func(context.Context, *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
			return nil, status.Error(codes.Internal, "before: "+text)
		},
	}, Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	d.Hide(token)
	_, first := d.Controller().CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: "v", Parameters: map[string]string{"type": "fast"}, Secrets: map[string]string{"password": password, "short": "os"},
		VolumeCapabilities: []*csi.VolumeCapability{capability(flag)},
	})
	// A later call, in whose request they are not.
	_, later := d.Controller().ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{VolumeId: "v"})
	for name, shown := range map[string]string{"the error": first.Error(), "its status": status.Convert(first).String(), "a later error": later.Error(), "the log": log.String()} {
		for _, secret := range []string{password, "sesame", token, url.QueryEscape(password), base64.StdEncoding.EncodeToString([]byte(password)), `pa\"ss`} {
			if strings.Contains(shown, secret) {
				t.Errorf("%s shows %q:\n%s", name, secret, shown)
			}
		}
		if !strings.Contains(shown, "opened with") {
			t.Errorf("%s lacks what may be seen:\n%s", name, shown)
		}
	}
	if shown := log.String(); !strings.Contains(shown, "fast") || !strings.Contains(shown, "CreateVolume") {
		t.Errorf("the log lacks what may be seen:\n%s", shown)
	}
}

// TestEverySecretField fills in every message of the service that has a secret.
func TestEverySecretField(t *testing.T) {
	of := map[string]string{"k": password}
	c := capability(flag)
	for _, m := range []proto.Message{
		&csi.CreateVolumeRequest{Secrets: of, VolumeCapabilities: []*csi.VolumeCapability{c, c}},
		&csi.DeleteVolumeRequest{Secrets: of},
		&csi.ControllerPublishVolumeRequest{Secrets: of, VolumeCapability: c},
		&csi.ControllerUnpublishVolumeRequest{Secrets: of},
		&csi.ValidateVolumeCapabilitiesRequest{Secrets: of, VolumeCapabilities: []*csi.VolumeCapability{c}},
		&csi.NodeStageVolumeRequest{Secrets: of, VolumeCapability: c},
		&csi.NodePublishVolumeRequest{Secrets: of, VolumeCapability: c},
		&csi.CreateSnapshotRequest{Secrets: of},
		&csi.DeleteSnapshotRequest{Secrets: of},
		&csi.ListSnapshotsRequest{Secrets: of},
		&csi.ControllerExpandVolumeRequest{Secrets: of, VolumeCapability: c},
		&csi.NodeExpandVolumeRequest{Secrets: of, VolumeCapability: c},
		&csi.ControllerModifyVolumeRequest{Secrets: of},
		&csi.CreateVolumeGroupSnapshotRequest{Secrets: of},
		&csi.DeleteVolumeGroupSnapshotRequest{Secrets: of},
		&csi.GetVolumeGroupSnapshotRequest{Secrets: of},
		// Of an answer too, which has the capability that was confirmed.
		&csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: []*csi.VolumeCapability{c}}},
	} {
		before := proto.Clone(m)
		if shown := Redacted(m); strings.Contains(shown, "ss/w") || strings.Contains(shown, "sesame") || !strings.Contains(shown, stripped) {
			t.Errorf("%T: %s", m, shown)
		}
		if !proto.Equal(before, m) {
			t.Errorf("%T was changed", m)
		}
		var hidden secrets
		hidden.add(m)
		if got := hidden.strip(Redacted(m) + password); proto.Size(m) > 0 && strings.Contains(Redacted(m), "secrets") && strings.Contains(got, password) {
			t.Errorf("%T: strip: %s", m, got)
		}
		if got := hidden.strip("-o " + flag); strings.Contains(Redacted(m), "mountFlags") && got != "-o "+stripped {
			t.Errorf("%T: strip: %s", m, got)
		}
	}
}

func TestStripLeavesWords(t *testing.T) {
	var s secrets
	s.hide("no")
	s.hide("ab")
	s.hide("abc-long-one")
	for text, want := range map[string]string{
		"no node: no": "*** node: ***", "nono": "nono", "abc-long-one ab": "*** ***", "x=no;y": "x=***;y", "cab ab.": "cab ***.", "": "", "éno no": "éno ***",
	} {
		if got := s.strip(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	for i := range 2 * maxSecrets {
		s.hide(fmt.Sprint("secret number ", i))
	}
	if len(s.order) != maxSecrets || len(s.values) != maxSecrets {
		t.Errorf("%d and %d are remembered", len(s.order), len(s.values))
	}
}
