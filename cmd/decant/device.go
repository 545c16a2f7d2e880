package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/client"
)

func joinCodeCommand() *cobra.Command {
	return addOutput(&cobra.Command{
		Use:     "join-code",
		Short:   "Make a code that lets one device join the site",
		Long:    "Make a code that lets one device join the site. It is good for one device and for 15 minutes.",
		Example: "  decant-supervisor --join $(decant join-code)",
		Args:    usage(cobra.NoArgs),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			code, err := c.NewJoinCode(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd, code, func(w io.Writer) { fmt.Fprintln(w, code.Code) })
		}),
	})
}

func deviceCommand() *cobra.Command {
	return group("device", "See and manage the site's devices", deviceLs(), deviceShow(), deviceApprove(), deviceRm())
}

func deviceLs() *cobra.Command {
	return addOutput(&cobra.Command{
		Use:   "ls",
		Short: "List the devices that have joined or were discovered",
		Args:  usage(cobra.NoArgs),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			devices, err := c.Devices(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd, devices, func(w io.Writer) {
				row(w, "NAME", "STATUS", "ARCH", "CORES", "MEMORY", "INFERENCE", "PERIPHERALS", "LOAD", "SEEN", "ID")
				for _, d := range devices {
					row(w, d.Name, deviceStatus(d), d.Capabilities.OS+"/"+d.Capabilities.Arch, d.Capabilities.Cores, d.Capabilities.Memory,
						backends(d), peripherals(d), fmt.Sprintf("%.2f", d.State.Load), ago(d.LastSeen), d.ID)
				}
			})
		}),
	})
}

func deviceShow() *cobra.Command {
	return addOutput(&cobra.Command{
		Use:     "show DEVICE",
		Short:   "Show a device",
		Example: "  decant device show gateway",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			d, err := c.Device(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd, d, func(w io.Writer) {
				row(w, "name", d.Name)
				row(w, "id", d.ID)
				row(w, "status", deviceStatus(d))
				row(w, "last seen", ago(d.LastSeen)+" ago")
				row(w, "addresses", strings.Join(d.Addresses, " "))
				row(w, "labels", labels(d.Labels))
				row(w, "machine", fmt.Sprintf("%s/%s, kernel %s, %d cores, %s", d.Capabilities.OS, d.Capabilities.Arch, d.Capabilities.Kernel, d.Capabilities.Cores, d.Capabilities.Memory))
				row(w, "state", fmt.Sprintf("load %.2f, %s of memory free", d.State.Load, d.State.FreeMemory))
				row(w, "wasm", d.Capabilities.Engine)
				row(w, "inference", backends(d))
				row(w, "peripherals", peripherals(d))
				row(w, "supervisor", d.Version)
			})
		}),
	})
}

func deviceApprove() *cobra.Command {
	return &cobra.Command{
		Use:     "approve DEVICE",
		Short:   "Let a discovered device join that was started without a code",
		Example: "  decant device approve kitchen-board",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return c.ApproveDevice(cmd.Context(), args[0])
		}),
	}
}

func deviceRm() *cobra.Command {
	return &cobra.Command{
		Use:     "rm DEVICE",
		Short:   "Forget a device; what it ran is placed elsewhere",
		Example: "  decant device rm kitchen-board",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return c.RemoveDevice(cmd.Context(), args[0])
		}),
	}
}

func deviceStatus(d decant.Device) string {
	switch {
	case d.Status == decant.DeviceKnown:
		return "waits for approval"
	case d.Online:
		return "online"
	}
	return "offline"
}

func backends(d decant.Device) string {
	var out []string
	for _, b := range d.Capabilities.Inference {
		out = append(out, strings.TrimSpace(b.Name+" "+b.Version))
	}
	return strings.Join(out, ", ")
}

func peripherals(d decant.Device) string {
	var out []string
	for _, p := range d.Capabilities.Peripherals {
		out = append(out, p.Name)
	}
	return strings.Join(out, ", ")
}

func labels(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, " ")
}
