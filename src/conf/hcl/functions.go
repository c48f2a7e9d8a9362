package hcl

import (
	"encoding/hex"
	"errors"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functionTable returns what can be called in expressions. All of it works on
// values alone: nothing reads a file, the environment or the time.
func (p *parser) functionTable() map[string]function.Function {
	return map[string]function.Function{
		"bytes":      p.bytes(),
		"chomp":      stdlib.ChompFunc,
		"concat":     stdlib.ConcatFunc,
		"contains":   stdlib.ContainsFunc,
		"distinct":   stdlib.DistinctFunc,
		"flatten":    stdlib.FlattenFunc,
		"format":     bounded(stdlib.FormatFunc),
		"formatlist": bounded(stdlib.FormatListFunc),
		"join":       stdlib.JoinFunc,
		"keys":       stdlib.KeysFunc,
		"length":     stdlib.LengthFunc,
		"lower":      stdlib.LowerFunc,
		"merge":      stdlib.MergeFunc,
		"replace":    stdlib.ReplaceFunc,
		"sort":       stdlib.SortFunc,
		"split":      stdlib.SplitFunc,
		"substr":     stdlib.SubstrFunc,
		"trimprefix": stdlib.TrimPrefixFunc,
		"trimspace":  stdlib.TrimSpaceFunc,
		"trimsuffix": stdlib.TrimSuffixFunc,
		"upper":      stdlib.UpperFunc,
		"values":     stdlib.ValuesFunc,
		"zipmap":     stdlib.ZipmapFunc,
	}
}

// bytes makes a string of hexadecimal digits: strings of HCL are UTF-8 in
// composed form, those of smtpd are any bytes.
func (p *parser) bytes() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "hex", Type: cty.String}},
		Type:   function.StaticReturnType(p.rawType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			b, err := hex.DecodeString(args[0].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgErrorf(0, "not pairs of hexadecimal digits")
			}
			s := string(b)
			return cty.CapsuleVal(p.rawType, &s), nil
		},
	})
}

// wide tells whether a format has a width or precision that no configuration
// needs: one of four digits.
func wide(format string) bool {
	for _, verb := range strings.Split(format, "%")[1:] {
		digits := 0
		for i := 0; i < len(verb) && strings.IndexByte("-+ #0123456789.[]", verb[i]) >= 0; i++ {
			if digits++; verb[i] < '0' || verb[i] > '9' {
				digits = 0
			}
			if digits > 3 {
				return true
			}
		}
	}
	return false
}

// bounded refuses formats that make very long strings.
func bounded(f function.Function) function.Function {
	return function.New(&function.Spec{
		Params:   f.Params(),
		VarParam: f.VarParam(),
		Type: func(args []cty.Value) (cty.Type, error) {
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if wide(args[0].AsString()) {
				return cty.NilVal, errors.New("the format is wider than 999")
			}
			return f.Call(args)
		},
	})
}
