package kubeshim

// resource is one kind of objects.
type resource struct {
	group, version, kind, plural, singular string

	short      []string
	namespaced bool
	// made says that drivers may create and delete them, and changed that they may change them.
	made, changed bool
	status        bool // there is a subresource for their status
}

// resources are those that drivers of storage ask for on a node.
var resources = []*resource{
	{version: "v1", kind: "Node", plural: "nodes", singular: "node", short: []string{"no"}, changed: true, status: true},
	{version: "v1", kind: "Secret", plural: "secrets", singular: "secret", namespaced: true},
	{version: "v1", kind: "ConfigMap", plural: "configmaps", singular: "configmap", short: []string{"cm"}, namespaced: true},
	{group: "storage.k8s.io", version: "v1", kind: "CSINode", plural: "csinodes", singular: "csinode", made: true, changed: true},
	{group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases", singular: "lease", namespaced: true, made: true, changed: true},
}

func (r *resource) apiVersion() string {
	if r.group == "" {
		return r.version
	}
	return r.group + "/" + r.version
}

func (r *resource) verbs() []string {
	verbs := []string{"get", "list", "watch"}
	if r.made {
		verbs = append(verbs, "create", "delete")
	}
	if r.changed {
		verbs = append(verbs, "update", "patch")
	}
	return verbs
}

func find(group, version, plural string) *resource {
	for _, r := range resources {
		if r.group == group && r.version == version && r.plural == plural {
			return r
		}
	}
	return nil
}

// kubeVersion is the version of Kubernetes whose API this is a part of.
const kubeVersion = "v1.34.0+remora"

// discovery answers what is there, as client-go asks it, in its old form, which all of its versions read.
func discovery(path []string) (any, bool) {
	switch {
	case len(path) == 1 && path[0] == "api":
		return object{"kind": "APIVersions", "versions": []string{"v1"}, "serverAddressByClientCIDRs": []any{}}, true
	case len(path) == 1 && path[0] == "apis":
		groups := []any{}
		for _, g := range groupNames() {
			groups = append(groups, groupOf(g))
		}
		return object{"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}, true
	case len(path) == 2 && path[0] == "apis":
		for _, g := range groupNames() {
			if g == path[1] {
				group := groupOf(g)
				group["kind"], group["apiVersion"] = "APIGroup", "v1"
				return group, true
			}
		}
	case len(path) == 2 && path[0] == "api":
		return resourceList("", path[1])
	case len(path) == 3 && path[0] == "apis":
		return resourceList(path[1], path[2])
	}
	return nil, false
}

func groupNames() (names []string) {
	for _, r := range resources {
		if r.group != "" {
			names = append(names, r.group)
		}
	}
	return names
}

func groupOf(name string) object {
	version := object{"groupVersion": name + "/v1", "version": "v1"}
	return object{"name": name, "versions": []any{version}, "preferredVersion": version}
}

func resourceList(group, version string) (any, bool) {
	list := []any{}
	groupVersion := ""
	for _, r := range resources {
		if r.group != group || r.version != version {
			continue
		}
		groupVersion = r.apiVersion()
		one := object{"name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": r.verbs()}
		if len(r.short) > 0 {
			one["shortNames"] = r.short
		}
		list = append(list, one)
		if r.status {
			list = append(list, object{"name": r.plural + "/status", "singularName": "", "namespaced": r.namespaced, "kind": r.kind, "verbs": []string{"get", "patch", "update"}})
		}
	}
	return object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": groupVersion, "resources": list}, groupVersion != ""
}
