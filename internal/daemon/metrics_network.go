package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/remora-plugins/remora/internal/control"
)

// The metrics of the network across hosts. They are 0 where it was not launched.
var (
	networkReady   = Metric{"remora_network_ready", "gauge", "1 if the host is in a cluster and its part of it runs, else 0.", nil}
	networkMembers = Metric{
		"remora_network_members", "gauge", "Hosts of the cluster, this one too, by whether they can be reached: reachable or unreachable.", []string{"state"},
	}
	networkPaths = Metric{
		"remora_network_paths", "gauge", "Other hosts that can be reached, by how data goes to them: direct, relayed through a third host, or none.", []string{"path"},
	}
	networkTunnel = Metric{
		"remora_network_tunnel_up", "gauge", "1 if there is a WireGuard tunnel, of the kernel or of a process, else 0. Without a password there is none.", nil,
	}
	networkRepairs = Metric{
		"remora_network_repairs_total", "counter", "Interfaces, routes and rules of the network that somebody else had changed, and that were put back.", nil,
	}
	networkAddresses = Metric{
		"remora_network_addresses", "gauge", "Addresses of this host in all networks, by whether a container or a bridge has them: given or free.", []string{"state"},
	}
	networkNames = Metric{"remora_network_names", "gauge", "Names of the cluster that can be looked up.", nil}
	networkDNS   = Metric{
		"remora_network_dns_queries_total", "counter",
		"Questions to this host's DNS server, by what came of them: answered out of the cluster's names, forwarded to other servers, failed because none of these answered, refused, or dropped as too many.",
		[]string{"result"},
	}
	networkProofs   = Metric{"remora_network_failed_proofs_total", "counter", "Tries to join with a wrong password.", nil}
	networkRefused  = Metric{"remora_network_refused_records_total", "counter", "Records of other hosts that were not believed.", nil}
	networkProblems = Metric{"remora_network_problems", "gauge", "Problems that \"remora network status\" tells of.", nil}
)

// networkStatus is how the network is; "off" where there is none.
func (d *Daemon) networkStatus() control.NetworkStatus {
	if d.network != nil {
		return d.network.Known()
	}
	return control.NetworkStatus{State: "off"}
}

// networkCollector reads how the network is when it is asked.
type networkCollector struct {
	d *Daemon
}

// Describe implements [prometheus.Collector].
func (c networkCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []Metric{
		networkReady, networkMembers, networkPaths, networkTunnel, networkRepairs, networkAddresses, networkNames, networkDNS,
		networkProofs, networkRefused, networkProblems,
	} {
		ch <- desc(m)
	}
}

// Collect implements [prometheus.Collector].
func (c networkCollector) Collect(ch chan<- prometheus.Metric) {
	collectNetwork(c.d.networkStatus(), ch)
}

func collectNetwork(s control.NetworkStatus, ch chan<- prometheus.Metric) {
	sum := s.Summary()
	send := func(m Metric, value float64, labels ...string) {
		kind := prometheus.GaugeValue
		if m.Type == "counter" {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(desc(m), kind, value, labels...)
	}
	is := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	send(networkReady, is(s.State == "ready"))
	send(networkMembers, float64(sum.Reachable), "reachable")
	send(networkMembers, float64(sum.Members-sum.Reachable), "unreachable")
	send(networkPaths, float64(sum.Direct), "direct")
	send(networkPaths, float64(sum.Relayed), "relayed")
	send(networkPaths, float64(max(0, sum.Reachable-1-sum.Direct-sum.Relayed)), "none")
	send(networkTunnel, is(s.Tunnel != ""))
	send(networkRepairs, float64(s.Repairs))
	send(networkAddresses, float64(sum.Given), "given")
	send(networkAddresses, float64(sum.Owned-min(sum.Owned, sum.Given)), "free")
	send(networkNames, float64(sum.Names))
	for result, n := range map[string]uint64{
		"answered": s.DNS.Answered, "forwarded": s.DNS.Forwarded, "failed": s.DNS.Failed, "refused": s.DNS.Refused, "dropped": s.DNS.Dropped,
	} {
		send(networkDNS, float64(n), result)
	}
	send(networkProofs, float64(s.FailedProofs))
	send(networkRefused, float64(s.RefusedRecords))
	send(networkProblems, float64(sum.Problems))
}
