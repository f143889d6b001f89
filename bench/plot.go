package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The colours of the peers, told apart by those who do not see red and green as well;
// each line is also named where it ends.
var colours = map[string]string{
	remora: "#0f6fc6", helpers: "#d9730d", floor: "#6b7280", "local": "#6b7280", restic: "#d9730d", gzipped: "#3d8b5f", tarred: "#6b7280",
}

// svg is a drawing that grows.
type svg struct {
	strings.Builder
	width, height float64
}

func newSVG(width, height float64, title string) *svg {
	s := &svg{width: width, height: height}
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img" aria-label="%s">`+"\n",
		width, height, width, height, html.EscapeString(title))
	s.WriteString(`<style>text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#374151}` +
		`.t{font-size:14px;font-weight:600;fill:#111827}.h{font-size:16px;font-weight:600;fill:#111827}.s{fill:#6b7280}` +
		`.g{stroke:#e5e7eb;stroke-width:1}.a{stroke:#9ca3af;stroke-width:1}</style>` + "\n")
	fmt.Fprintf(s, `<rect width="%g" height="%g" rx="8" fill="#fff"/>`+"\n", width, height)
	return s
}

func (s *svg) text(x, y float64, class, anchor, colour, text string) {
	fill := ""
	if colour != "" {
		fill = fmt.Sprintf(` style="fill:%s;font-weight:600"`, colour)
	}
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s"%s>%s</text>`+"\n", x, y, class, anchor, fill, html.EscapeString(text))
}

func (s *svg) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

func (s *svg) dot(x, y, r float64, colour, title string) {
	fmt.Fprintf(s, `<circle cx="%.1f" cy="%.1f" r="%g" fill="%s"><title>%s</title></circle>`+"\n", x, y, r, colour, html.EscapeString(title))
}

func (s *svg) end() string { return s.String() + "</svg>\n" }

// series is the line of one peer.
type series struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// frame is where a panel lies.
type frame struct{ x, y, w, h float64 }

// panel draws series over the number of volumes, both axes logarithmic.
func (s *svg) panel(f frame, title, sub string, all []series, format func(float64) string) {
	low, high := math.Inf(1), math.Inf(-1)
	var xs []float64
	for _, line := range all {
		for _, p := range line.points {
			low, high = min(low, p.y), max(high, p.y)
			xs = append(xs, p.x)
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	lo, hi := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	if hi-lo < 1 {
		hi = lo + 1
	}
	px := func(x float64) float64 {
		if len(xs) == 1 {
			return f.x + f.w/2
		}
		return f.x + f.w*math.Log(x/xs[0])/math.Log(xs[len(xs)-1]/xs[0])
	}
	py := func(y float64) float64 { return f.y + f.h*(hi-math.Log10(y))/(hi-lo) }
	s.text(f.x, f.y-30, "t", "start", "", title)
	s.text(f.x, f.y-14, "s", "start", "", sub)
	for e := lo; e <= hi; e++ {
		y := py(math.Pow(10, e))
		s.line(f.x, y, f.x+f.w, y, "g")
		s.text(f.x-8, y+4, "s", "end", "", strings.NewReplacer(".00 ", " ", ".0 ", " ").Replace(format(math.Pow(10, e))))
	}
	s.line(f.x, f.y+f.h, f.x+f.w, f.y+f.h, "a")
	for _, x := range xs {
		s.line(px(x), f.y+f.h, px(x), f.y+f.h+4, "a")
		s.text(px(x), f.y+f.h+18, "s", "middle", "", commas(int(x)))
	}
	var ends []label
	for _, line := range all {
		if len(line.points) == 0 {
			continue
		}
		var path []string
		for _, p := range line.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", px(p.x), py(p.y)))
		}
		fmt.Fprintf(s, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5" stroke-linejoin="round"/>`+"\n",
			strings.Join(path, " "), colours[line.name])
		for _, p := range line.points {
			s.dot(px(p.x), py(p.y), 4, colours[line.name], fmt.Sprintf("%s, %s volumes: %s", line.name, commas(int(p.x)), format(p.y)))
		}
		last := line.points[len(line.points)-1]
		ends = append(ends, label{py(last.y), line.name, format(last.y)})
	}
	for _, l := range apart(ends, 15) {
		s.text(f.x+f.w+10, l.y+4, "", "start", colours[l.name], l.name+" "+l.value)
	}
}

// label is the name of a line at its end.
type label struct {
	y           float64
	name, value string
}

// apart moves labels down until they are gap apart, then all of them half way back.
func apart(ls []label, gap float64) []label {
	slices.SortFunc(ls, func(a, b label) int { return int(math.Copysign(1, a.y-b.y)) })
	moved := 0.0
	for i := 1; i < len(ls); i++ {
		if d := ls[i-1].y + gap - ls[i].y; d > 0 {
			ls[i].y += d
			moved = max(moved, d)
		}
	}
	for i := range ls {
		ls[i].y -= moved / 2
	}
	return ls
}

// callsPlot shows how calls depend on the number of volumes.
func (r *Results) callsPlot() string {
	volumes, clients := r.scales()
	few, many := clients[0], clients[len(clients)-1]
	s := newSVG(980, 720, "Calls of volume plugins over the number of volumes")
	line := func(verb string, c int, value func(summary) float64) []series {
		var all []series
		for _, peer := range []string{floor, helpers, remora} {
			l := series{name: peer}
			for _, n := range volumes {
				if sum, ok := r.of(peer, key{verb, n, c}); ok {
					l.points = append(l.points, point{float64(n), value(sum)})
				}
			}
			all = append(all, l)
		}
		return all
	}
	middle := func(s summary) float64 { return s.p50 }
	s.text(30, 34, "h", "start", "", "What a call costs, and how it grows with the number of volumes")
	const w, h, left, right, top, bottom = 260, 200, 80, 570, 112, 442
	s.panel(frame{left, top, w, h}, "Get", "p50, "+callers(few), line(get, few, middle), span)
	s.panel(frame{right, top, w, h}, "Mount", "p50, "+callers(few), line(mount, few, middle), span)
	s.panel(frame{left, bottom, w, h}, "List", "p50, "+callers(few), line(list, few, middle), span)
	creates := line(create, many, func(s summary) float64 { return s.rate })
	s.panel(frame{right, bottom, w, h}, "Create", "calls per second, "+callers(many)+"; more is better", creates, count)
	s.text(30, 700, "s", "start", "", "Volumes on the horizontal axis; both axes are logarithmic. The floor does nothing but HTTP and JSON.")
	return s.end()
}

// runsPlot shows each docker run as a dot.
func (r *Results) runsPlot() string {
	s := newSVG(980, 210, "Wall time of docker run on the driver local and on Remora")
	s.text(30, 34, "h", "start", "", "docker run --rm -v VOLUME:/data IMAGE true")
	if len(r.Runs) == 0 {
		s.text(30, 110, "s", "start", "", "not measured: the machine had no engine")
		return s.end()
	}
	var all []float64
	values := map[string][]float64{}
	for _, x := range r.Runs {
		values["local"], values[remora] = append(values["local"], x.Local), append(values[remora], x.Remora)
		all = append(all, x.Local, x.Remora)
	}
	step := math.Pow(10, math.Floor(math.Log10(slices.Max(all)-slices.Min(all))))
	lo, hi := math.Floor(slices.Min(all)/step)*step, math.Ceil(slices.Max(all)/step)*step
	const left, width, top = 110, 820, 76
	px := func(ms float64) float64 { return left + width*(ms-lo)/(hi-lo) }
	for ms := lo; ms <= hi+step/2; ms += step {
		s.line(px(ms), top-14, px(ms), top+84, "g")
		s.text(px(ms), top+102, "s", "middle", "", fmt.Sprintf("%g ms", ms))
	}
	for i, name := range []string{"local", remora} {
		y := float64(top + 14 + i*44)
		s.text(left-14, y+4, "", "end", colours[name], name)
		for j, ms := range values[name] {
			// Dots of one row are spread by their number, so that equal ones are seen.
			s.dot(px(ms), y+float64(j%5-2)*4, 3.5, colours[name]+"99", fmt.Sprintf("%s: %.0f ms", name, ms))
		}
		m := px(median(values[name]))
		fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="3"/>`+"\n", m, y-16, m, y+16, colours[name])
	}
	s.text(30, top+126, "s", "start", "", fmt.Sprintf("%d runs on each, in turn; the bars are the medians.", len(r.Runs)))
	return s.end()
}
