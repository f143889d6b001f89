package main

import (
	"math"
	"slices"
	"time"
)

// quantile returns the value below which the fraction q of the sorted values lies, by
// the nearest-rank method: always a value that was measured. Of none it is NaN.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median returns the middle of values, or the mean of the two in the middle. Of none
// it is NaN. values stays as it is.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(n-1)/2] + s[n/2]) / 2
}

// interval returns bounds between which the true median of a population lies with a
// probability of 95 % at least, from order statistics alone. Of fewer than 6 values
// it is the range, which promises less.
func interval(values []float64) (low, high float64) {
	n := len(values)
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	// The number of values below the median is binomial with p = 1/2. k counts from
	// each end as many values as may be left out.
	k, tail, term := 0, 0.0, math.Pow(0.5, float64(n))
	for tail+term <= 0.025 {
		tail += term
		k++
		term *= float64(n-k+1) / float64(k)
	}
	k = max(k-1, 0)
	return s[k], s[n-1-k]
}

// micros returns durations in microseconds, sorted.
func micros(ds []time.Duration) []float64 {
	us := make([]float64, 0, len(ds))
	for _, d := range ds {
		us = append(us, float64(d)/float64(time.Microsecond))
	}
	slices.Sort(us)
	return us
}
