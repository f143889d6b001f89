package runtime

import (
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestCheckRights(t *testing.T) {
	p := Plugin{ID: "1", Rootfs: "/r"}
	p.Config.Linux.Capabilities = []string{"CAP_SYS_ADMIN", "CAP_FUTURE"}
	spec, err := p.Spec("/s", "/g")
	noErr(t, err)
	const all = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0\n"
	noErr(t, checkRights(spec, all))
	noErr(t, checkRights(spec, ""))
	// That of the service that packages bring, before the drop-in.
	err = checkRights(spec, "Name:\tx\nCapPrm:\t00000000882800ff\n")
	wants(t, err, "the daemon lacks CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and 3 more, which it would have to give to the plugin")
	if len(errdefs.Hints(err)) == 0 {
		t.Error("nobody is told what to do")
	}
	wants(t, checkRights(spec, strings.ReplaceAll(all, "1ffffffffff", "1ffffdfffff")), "the daemon lacks CAP_SYS_ADMIN, which")
	p.Config.Network.Type = "host"
	spec, err = p.Spec("/s", "/g")
	noErr(t, err)
	noErr(t, checkRights(spec, strings.ReplaceAll(all, "1ffffffffff", "1ffffffefff"))) // without NET_ADMIN
}
