package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// services is a Compose project whose service says at which host it runs. %s are its networks.
const services = `version: "3.7"
services:
  web:
    image: bb:1
    command: sh -c "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    stop_grace_period: 0s
%s`

// outside puts it on a network that there is, with an alias.
const outside = `    networks: { shared: { aliases: [site] } }
networks:
  shared: { external: true, name: remora }
`

// own gives it a network of its own, which is one on all hosts.
const own = `networks:
  default:
    name: shop
    driver: remora
    ipam: { driver: remora, options: { net: shop }, config: [ { subnet: 10.80.0.0/16 } ] }
`

// compose runs docker-compose on a host for a project that is made of text.
func compose(h *lab.Host, project, text string, args ...string) (string, error) {
	h.Write("/run/"+project+"/docker-compose.yml", fmt.Sprintf(services, text))
	return h.Run("docker-compose", append([]string{"-p", project, "-f", "/run/" + project + "/docker-compose.yml"}, args...)...)
}

func mustCompose(t *testing.T, h *lab.Host, project, text string, args ...string) {
	t.Helper()
	if out, err := compose(h, project, text, args...); err != nil {
		t.Fatalf("host %s: %s%v", h.Name, out, err)
	}
}

// asker starts a container from which names are asked. Its resolver looks below the domains first, so that a name that a
// container of the same engine has as well is asked of all hosts.
func asker(h *lab.Host, network string) {
	args := append([]string{"run", "-d", "--name", "asker-" + network, "--net=" + network, "--dns-opt=ndots:1"}, dnsArgs(h)...)
	h.MustDocker(append(args, lab.ImageName, "sleep", "1000")...)
}

// resolve returns the addresses of a name as a container sees them, in their order.
func resolve(h *lab.Host, container, name string) []string {
	out, _ := h.Docker("exec", container, "nslookup", "-type=a", name) // no such name is no address
	_, out, _ = strings.Cut(out, "Name:")
	var all []string
	for line := range strings.Lines(out) {
		if a, ok := strings.CutPrefix(strings.TrimSpace(line), "Address: "); ok {
			all = append(all, a)
		}
	}
	return all
}

// addresses are those of a host's containers that a filter lets through, in one network.
func addresses(h *lab.Host, network string, filter ...string) []string {
	var all []string
	args := []string{"ps", "-q"}
	for _, f := range filter {
		args = append(args, "-f", f)
	}
	for id := range strings.FieldsSeq(h.MustDocker(args...)) {
		all = append(all, h.MustDocker("inspect", "-f", "{{(index .NetworkSettings.Networks \""+network+"\").IPAddress}}", id))
	}
	return all
}

func sorted(lists ...[]string) string {
	return strings.Join(slices.Sorted(slices.Values(slices.Concat(lists...))), " ")
}

// found waits until a container sees just these addresses under a name.
func found(t *testing.T, h *lab.Host, container, name, addresses string) {
	t.Helper()
	last := ""
	if !within(10*time.Second, func() bool {
		last = sorted(resolve(h, container, name))
		return last == addresses
	}) {
		t.Errorf("host %s: %s has %q, want %q", h.Name, name, last, addresses)
	}
}

// TestNetworkCompose runs one project on two hosts: its service is found from both by its name and alias, at all its replicas
// in changing order, and one that is gone is not found from then on.
func TestNetworkCompose(t *testing.T) {
	testenv.Require(t, testenv.Compose)
	m := newMeshedOf(t, "nyc-host", "london")
	nyc, london := m.hosts[0], m.hosts[1]
	web := "label=com.docker.compose.service=web"

	t.Run("on a network that there is", func(t *testing.T) {
		mustCompose(t, nyc, "demo", outside, "up", "-d", "--scale", "web=2")
		mustCompose(t, london, "demo", outside, "up", "-d")
		for _, h := range m.hosts {
			asker(h, "remora")
		}
		all := sorted(addresses(nyc, "remora", web), addresses(london, "remora", web))
		if strings.Count(all, " ") != 2 {
			t.Fatalf("want three replicas, have %s", all)
		}
		for _, h := range m.hosts {
			for _, name := range []string{"web", "web.remora.local", "web.demo", "web.demo.remora.local", "site", "site.remora.local"} {
				found(t, h, "asker-remora", name, all)
			}
		}
		first := map[string]int{}
		for range 30 {
			first[resolve(nyc, "asker-remora", "web")[0]]++
		}
		if len(first) != 3 {
			t.Errorf("first of 30 answers: %v", first)
		}
		// One replica goes, by its name, and is not found any more when the command has returned.
		begun := time.Now()
		mustCompose(t, nyc, "demo", outside, "up", "-d", "--scale", "web=1")
		fewer := sorted(addresses(nyc, "remora", web), addresses(london, "remora", web))
		scaled := time.Since(begun)
		begun = time.Now()
		found(t, london, "asker-remora", "web", fewer)
		t.Logf("withdrawn on the other host %s after docker-compose, which took %s", time.Since(begun), scaled)
		london.MustDocker("kill", "demo_web_1")
		begun = time.Now()
		found(t, nyc, "asker-remora", "site", sorted(addresses(nyc, "remora", web)))
		t.Logf("withdrawn %s after docker kill", time.Since(begun))
		for _, h := range m.hosts {
			mustCompose(t, h, "demo", outside, "down")
		}
		found(t, nyc, "asker-remora", "web", "")
	})
	t.Run("on its own network", func(t *testing.T) {
		mustCompose(t, nyc, "shop", own, "up", "-d")
		if !within(10*time.Second, func() bool { return has(london, "shop") }) {
			t.Fatalf("host london: no network shop: %s", networks(london))
		}
		for _, label := range []string{"project", "network", "version"} { // by which Compose knows it for its own
			ask := []string{"network", "inspect", "-f", `{{index .Labels "com.docker.compose.` + label + `"}}`, "shop"}
			is(t, "label "+label, london.MustDocker(ask...), nyc.MustDocker(ask...))
		}
		mustCompose(t, london, "shop", own, "up", "-d", "--scale", "web=2")
		said, err := london.Run("sh", "-c", "docker-compose -p shop -f /run/shop/docker-compose.yml up -d --scale web=2 2>&1")
		if err != nil || strings.Contains(said, "recreated") {
			t.Errorf("Compose takes the network for another one: %s%v", said, err)
		}
		for _, h := range m.hosts {
			asker(h, "shop")
		}
		for _, h := range m.hosts {
			found(t, h, "asker-shop", "web", sorted(addresses(nyc, "shop", web), addresses(london, "shop", web)))
		}
		for _, h := range m.hosts {
			h.MustDocker("rm", "-f", "asker-shop")
		}
		// It goes on one host and comes back there, while it goes on on the other.
		mustCompose(t, london, "shop", own, "down")
		if has(london, "shop") {
			t.Error("the network is there after down")
		}
		mustCompose(t, london, "shop", own, "up", "-d")
		asker(london, "shop")
		found(t, london, "asker-shop", "web", sorted(addresses(nyc, "shop", web), addresses(london, "shop", web)))
		out := london.MustDocker("exec", "asker-shop", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do wget -qO- http://web/; done; wget -qO- http://"+addresses(nyc, "shop", web)[0]+"/")
		if strings.Count(out, "\n") != 8 {
			t.Errorf("the service answers: %q", out)
		}
		london.MustDocker("rm", "-f", "asker-shop")
		for _, h := range m.hosts {
			mustCompose(t, h, "shop", own, "down")
		}
		if !within(10*time.Second, func() bool { return !has(nyc, "shop") && !has(london, "shop") }) {
			t.Errorf("networks are left: %s; %s", networks(nyc), networks(london))
		}
	})
}
