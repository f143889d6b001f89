package ec2

import "slices"

type place struct {
	region, zone string
}

func placeField(p place, name string) ([]string, bool) {
	one, ok := map[string]string{
		"region-name": p.region, "zone-name": p.zone, "state": "available", "zone-type": "availability-zone",
		"endpoint": "ec2." + p.region + ".amazonaws.com", "opt-in-status": "opt-in-not-required",
	}[name]
	return []string{one}, ok
}

// places returns those of all that pass the filters and are in the list of names, if any.
func (r *request) places(all []place, asked []string, name func(place) string, unknown string) (out []place, err error) {
	filters := r.filters()
	if err := checkFilters(filters, placeField); err != nil {
		return nil, err
	}
	for _, want := range asked {
		if !slices.ContainsFunc(all, func(p place) bool { return name(p) == want }) {
			return nil, invalid("%s: [%s]", unknown, want)
		}
	}
	for _, p := range all {
		if len(asked) > 0 && !slices.Contains(asked, name(p)) {
			continue
		}
		if !slices.ContainsFunc(filters, func(f filter) bool { have, _ := placeField(p, f.name); return !f.match(have) }) {
			out = append(out, p)
		}
	}
	return out, nil
}

func describeZones(r *request) (any, error) {
	var all []place
	for _, z := range r.cloud.zones(r.region.name) {
		all = append(all, place{r.region.name, z})
	}
	found, err := r.places(all, r.list("ZoneName"), func(p place) string { return p.zone }, "Invalid availability zone")
	if err != nil {
		return nil, err
	}
	var out zonesXML
	for _, p := range found {
		out.Zones = append(out.Zones, zoneXML{p.zone, zoneID(p.zone), "available", p.region, p.region, "opt-in-not-required", "availability-zone"})
	}
	return out, nil
}

// zoneID is a name that means the same zone for all accounts.
func zoneID(zone string) string {
	return zone[:len(zone)-1] + "-az" + string(rune('1'+zone[len(zone)-1]-'a'))
}

func describeRegions(r *request) (any, error) {
	var all []place
	for _, name := range r.cloud.conf.Regions {
		all = append(all, place{region: name})
	}
	found, err := r.places(all, r.list("RegionName"), func(p place) string { return p.region }, "Invalid region name")
	if err != nil {
		return nil, err
	}
	var out regionsXML
	for _, p := range found {
		out.Regions = append(out.Regions, regionXML{p.region, "ec2." + p.region + ".amazonaws.com", "opt-in-not-required"})
	}
	return out, nil
}
