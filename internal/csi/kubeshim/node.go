package kubeshim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// node makes the Node that this host is.
func (c Config) node() object {
	labels := object{
		"kubernetes.io/hostname": c.Node, "kubernetes.io/os": runtime.GOOS, "kubernetes.io/arch": runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH,
	}
	for k, v := range c.Labels {
		labels[k] = v
	}
	annotations := object{}
	for k, v := range c.Annotations {
		annotations[k] = v
	}
	spec := object{}
	if c.ProviderID != "" {
		spec["providerID"] = c.ProviderID
	}
	now := time.Now().UTC().Format(time.RFC3339)
	resources := object{"cpu": strconv.Itoa(runtime.NumCPU()), "memory": memory(), "pods": "110"}
	return object{
		"metadata": object{"uid": uuid("Node", machineID(), c.Node), "labels": labels, "annotations": annotations},
		"spec":     spec,
		"status": object{
			"addresses": addresses(c.Node), "capacity": resources, "allocatable": resources,
			"conditions": []any{object{
				"type": "Ready", "status": "True", "reason": "Remora", "message": "the host is up", "lastHeartbeatTime": now, "lastTransitionTime": now,
			}},
			"nodeInfo": object{
				"machineID": machineID(), "systemUUID": firstLine("/sys/class/dmi/id/product_uuid"), "bootID": firstLine("/proc/sys/kernel/random/boot_id"),
				"kernelVersion": kernel(), "osImage": osImage(), "operatingSystem": runtime.GOOS, "architecture": runtime.GOARCH,
				"containerRuntimeVersion": "remora://1", "kubeletVersion": kubeVersion, "kubeProxyVersion": "",
			},
		},
	}
}

// uuid makes the same UUID of the same parts.
func uuid(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // RFC 9562, version 8
	h := hex.EncodeToString(sum[:16])
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}

func machineID() string { return firstLine("/etc/machine-id") }

func firstLine(name string) string {
	data, _ := os.ReadFile(name)
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	return string(release)
}

func osImage() string {
	data, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	return "Linux"
}

func memory() string {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return "0"
	}
	return strconv.FormatUint(uint64(info.Totalram)*uint64(info.Unit)>>10, 10) + "Ki"
}

// addresses are the host's own, as drivers look for them, with its name.
func addresses(name string) []any {
	out := []any{}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			out = append(out, object{"type": "InternalIP", "address": ip.IP.String()})
		}
	}
	return append(out, object{"type": "Hostname", "address": name})
}
