package conn

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
)

// FuzzAnswers gives what a driver answers, as it is on the wire, to what makes facts of it.
func FuzzAnswers(f *testing.F) {
	for _, m := range []proto.Message{
		&csi.GetPluginInfoResponse{Name: "a.example.org", VendorVersion: "v1\n2"},
		&csi.NodeGetInfoResponse{NodeId: "n\x00", MaxVolumesPerNode: -1},
		&csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{nil, {Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: 99},
		}}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := open(t, Config{Node: "/nowhere"})
		var info csi.GetPluginInfoResponse
		if proto.Unmarshal(b, &info) == nil {
			if err := d.recognize(d.node, info.GetName()); (err == nil) != driverName.MatchString(info.GetName()) || err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("name %q: %v", info.GetName(), err)
			}
			if v := clean(info.GetVendorVersion(), maxVersion); strings.ContainsAny(v, "\n\x00") || len(v) > maxVersion+len("…") || !utf8.ValidString(v) {
				t.Errorf("version %q", v)
			}
		}
		var node csi.NodeGetInfoResponse
		if proto.Unmarshal(b, &node) == nil {
			facts := Facts{}
			if err := d.place(&facts, &node); err == nil && (facts.MaxVolumes < 0 || strings.ContainsAny(facts.NodeID, "\n\x00")) {
				t.Errorf("%+v", facts)
			}
		}
		var plugin csi.GetPluginCapabilitiesResponse
		if proto.Unmarshal(b, &plugin) == nil {
			services, expansion := pluginCaps(&plugin)
			_, _ = services.Names(), expansion.Names()
		}
		var controller csi.ControllerGetCapabilitiesResponse
		if proto.Unmarshal(b, &controller) == nil {
			_ = controllerCaps(&controller).Names()
		}
		var of csi.NodeGetCapabilitiesResponse
		if proto.Unmarshal(b, &of) == nil {
			_ = nodeCaps(&of).Names()
		}
		var group csi.GroupControllerGetCapabilitiesResponse
		if proto.Unmarshal(b, &group) == nil {
			_ = groupCaps(&group).Names()
		}
	})
}

// FuzzStrip gives secrets, and texts that have them in all kinds of places.
func FuzzStrip(f *testing.F) {
	f.Add("pa ss", "a: ", " b")
	f.Add("no", "nono", "")
	f.Add("***", "*", "*")
	f.Add("\xff\xfe", "\xff", "\n")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		var s secrets
		s.hide(secret)
		secret = strings.TrimSpace(secret)
		got := s.strip(before + " " + secret + " " + after)
		if strings.Trim(secret, "*") != "" && len(secret) >= short && strings.Contains(got, secret) {
			t.Errorf("%q is in %q", secret, got)
		}
		if want := s.strip(got); len(secret) >= short && strings.Trim(secret, "*") != "" && strings.Contains(want, secret) {
			t.Errorf("%q is in %q", secret, want)
		}
	})
}
