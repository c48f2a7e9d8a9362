package conf

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseDelay reads a positive number with its unit s, m, h or d. It must fit in
// 31 bits of seconds, as in OpenSMTPD.
func ParseDelay(s string) (time.Duration, bool) {
	if len(s) < 2 {
		return 0, false
	}
	var unit int64
	switch s[len(s)-1] {
	case 's':
		unit = 1
	case 'm':
		unit = 60
	case 'h':
		unit = 3600
	case 'd':
		unit = 86400
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 31)
	if err != nil || n < 1 || int64(n) > math.MaxInt32/unit {
		return 0, false
	}
	return time.Duration(int64(n)*unit) * time.Second, true
}

// FormatDelay writes d, whole seconds, with the largest unit that divides it.
func FormatDelay(d time.Duration) string {
	n, unit := int64(d/time.Second), "s"
	for _, u := range []struct {
		n    int64
		name string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}} {
		if n > 0 && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + unit
}

// scales are the letters of scan_scaled(3), each 1024 times the one before.
const scales = "BKMGTPE"

// ParseSize reads a number of bytes as scan_scaled(3) does: digits, maybe a
// fraction, maybe one of B K M G T P E in either case.
func ParseSize(s string) (int64, bool) {
	scale := int64(1)
	if n := len(s); n > 0 && (s[n-1] < '0' || s[n-1] > '9') && s[n-1] != '.' {
		i := strings.IndexByte(scales, s[n-1]&^0x20)
		if i < 0 {
			return 0, false
		}
		scale <<= 10 * i
		s = s[:n-1]
	}
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" && frac == "" || len(frac) > 15 {
		return 0, false
	}
	n, err := strconv.ParseUint("0"+whole, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/scale {
		return 0, false
	}
	size := int64(n) * scale
	if frac != "" {
		f, err := strconv.ParseUint(frac, 10, 63)
		if err != nil {
			return 0, false
		}
		size += int64(float64(f) / math.Pow10(len(frac)) * float64(scale))
	}
	return size, size >= 0
}

// FormatSize writes n with the largest of K, M and G that divides it.
func FormatSize(n int64) string {
	for i := 3; i > 0; i-- {
		if unit := int64(1) << (10 * i); n > 0 && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + scales[i:i+1]
		}
	}
	return strconv.FormatInt(n, 10)
}
