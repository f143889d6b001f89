package main

import (
	"net/netip"
	"testing"

	"github.com/remora-plugins/remora/sdk/network"
	"github.com/remora-plugins/remora/sdk/network/networktest"
)

func TestConformance(t *testing.T) {
	networktest.Run(t, networktest.Config{
		New:        func(*testing.T) network.Driver { return null{} },
		BadOptions: map[string]string{"com.docker.network.driver.mtu": "1400"},
		IPv6:       netip.MustParsePrefix("fd00:99::/64"),
	})
}
