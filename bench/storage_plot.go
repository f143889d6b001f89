package main

import (
	"fmt"
	"math"
)

// plot shows the ratios of fio with their bounds, and the times of backups.
func (r *StorageResults) plot() string {
	s := newSVG(980, 955, "The data path of each driver against the bare file system, and backups against other programs")
	s.text(30, 34, "h", "start", "", "Rate of a volume to that of the bare file system")
	s.ratios(r, 300, 74, 560)
	s.text(30, 633, "h", "start", "", "Backup and restore, seconds until all is on the disk; less is better")
	s.phases(r, 110, 665)
	return s.end()
}

// ratios draws a line for each job of each driver.
func (s *svg) ratios(r *StorageResults, left, top, width float64) {
	high := 1.5
	px := func(v float64) float64 { return left + width*min(max(v, 0), high)/high }
	y := top
	for _, g := range goals {
		s.text(30, y+4, "t", "start", "", g.driver)
		begin := y
		for _, j := range jobs {
			x, ok := r.fioRatio(g.driver, j.name)
			if !ok {
				continue
			}
			colour := colours[remora]
			if x.high < g.least {
				colour = colours[helpers]
			}
			s.text(left-10, y+4, "s", "end", "", j.name)
			fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="2"/>`+"\n", px(x.low), y, px(x.high), y, colour)
			s.dot(px(x.mid), y, 4, colour, x.times())
			s.text(left+width+16, y+4, "", "start", colour, fmt.Sprintf("%.2f×", x.mid))
			y += 18
		}
		if g.least > 0 {
			s.line(px(g.least), begin-10, px(g.least), y-8, "a")
		}
		y += 14
	}
	for v := 0.0; v <= high; v += 0.25 {
		s.line(px(v), top-12, px(v), y-20, "g")
		s.text(px(v), y-4, "s", "middle", "", fmt.Sprintf("%g×", v))
	}
	s.text(left, y+14, "s", "start", "", "Dots are medians, lines the bounds of 95 %; the grey bar of each driver is its goal.")
}

// phases draws a bar for each peer in each phase.
func (s *svg) phases(r *StorageResults, left, top float64) {
	high := 0.0
	for _, phase := range phases {
		for _, peer := range backupPeers {
			if t := median(r.backup(peer, phase, seconds)); !math.IsNaN(t) {
				high = max(high, t)
			}
		}
	}
	if high == 0 {
		s.text(30, top, "s", "start", "", "not measured")
		return
	}
	const width = 700
	y := top
	for _, phase := range phases {
		s.text(30, y+4, "t", "start", "", phase)
		for _, peer := range backupPeers {
			t := median(r.backup(peer, phase, seconds))
			fmt.Fprintf(s, `<rect x="%.1f" y="%.1f" width="%.1f" height="11" fill="%s"/>`+"\n", left+20, y-5, width*t/high, colours[peer])
			s.text(left+20+width*t/high+8, y+5, "", "start", colours[peer], fmt.Sprintf("%s %.1f s", peer, t))
			y += 15
		}
		y += 9
	}
}
