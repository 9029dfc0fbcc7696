{{/*
The device configuration of every family but NVIDIA: one block a family, under the names that HAMi's configuration has.
From these names come the resources that kube-scheduler leaves to the extender.
*/}}
{{- define "hami.families" -}}
{{- $devices := .Values.devices -}}
{{- if $devices.cambricon.enabled }}
cambricon:
  resourceCountName: {{ .Values.mluResourceName }}
  resourceMemoryName: {{ .Values.mluResourceMem }}
  resourceCoreName: {{ .Values.mluResourceCores }}
{{- end }}
{{- if $devices.hygon.enabled }}
hygon:
  resourceCountName: {{ .Values.dcuResourceName }}
  resourceMemoryName: {{ .Values.dcuResourceMem }}
  resourceCoreName: {{ .Values.dcuResourceCores }}
  memoryFactor: {{ $devices.hygon.memoryFactor }}
{{- end }}
{{- if $devices.metax.enabled }}
metax:
  resourceCountName: {{ $devices.metax.resourceCountName }}
  resourceVCountName: {{ .Values.metaxResourceName }}
  resourceVMemoryName: {{ .Values.metaxResourceMem }}
  resourceVCoreName: {{ .Values.metaxResourceCore }}
  sgpuTopologyAware: {{ eq (toString .Values.metaxsGPUTopologyAware) "true" }}
{{- end }}
{{- if $devices.mthreads.enabled }}
mthreads:
  resourceCountName: {{ $devices.mthreads.resourceCountName }}
  resourceMemoryName: {{ $devices.mthreads.resourceMemoryName }}
  resourceCoreName: {{ $devices.mthreads.resourceCoreName }}
{{- end }}
{{- if $devices.iluvatar.enabled }}
iluvatars:
{{- range $devices.iluvatar.chips }}
- chipName: {{ . }}
  commonWord: {{ . }}
  resourceCountName: iluvatar.ai/{{ . }}-vgpu
  resourceMemoryName: iluvatar.ai/{{ . }}.vMem
  resourceCoreName: iluvatar.ai/{{ . }}.vCore
{{- end }}
{{- end }}
{{- if $devices.enflame.enabled }}
enflame:
  resourceNameGCU: {{ $devices.enflame.resourceNameGCU }}
  resourceNameDRSGCU: {{ .Values.enflameResourceNameDRSGCU }}
  resourceNameGCUMemory: {{ .Values.enflameResourceNameGCUMemory }}
  resourceNameGCUCore: {{ .Values.enflameResourceNameGCUCore }}
{{- end }}
{{- if $devices.kunlun.enabled }}
kunlun:
  resourceCountName: {{ .Values.kunlunResourceName }}
  resourceVCountName: {{ .Values.kunlunResourceVCountName }}
  resourceVMemoryName: {{ .Values.kunlunResourceVMemoryName }}
{{- end }}
{{- if $devices.awsneuron.enabled }}
awsneuron:
  resourceCountName: {{ $devices.awsneuron.resourceCountName }}
  resourceCoreName: {{ $devices.awsneuron.resourceCoreName }}
{{- end }}
{{- if $devices.amd.enabled }}
amd:
  resourceCountName: {{ $devices.amd.resourceCountName }}
  resourceMemoryName: {{ $devices.amd.resourceMemoryName }}
  resourceCoreName: {{ $devices.amd.resourceCoreName }}
{{- end }}
{{- if $devices.vastai.enabled }}
vastai:
  resourceCountName: {{ .Values.vastaiResourceName }}
{{- end }}
{{- if $devices.biren.enabled }}
biren:
  resourceCountName: {{ .Values.birenResourceName }}
{{- end }}
{{- if $devices.ascend.enabled }}
vnpus:
  hamiVnpuCore: {{ $devices.ascend.hamiVnpuCore }}
  configs:
  {{- range $devices.ascend.chips }}
  - chipName: {{ .chipName }}
    commonWord: {{ .commonWord }}
    resourceName: huawei.com/{{ .commonWord }}
    resourceMemoryName: huawei.com/{{ .commonWord }}-memory
    resourceCoreName: huawei.com/{{ .commonWord }}-core
    runtimeClassName: {{ $devices.ascend.runtimeClassName | quote }}
    {{- omit . "chipName" "commonWord" | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Flags of families that are off unless somebody turns them on. */}}
{{- define "hami.familyFlags" -}}
{{- if .Values.devices.ascend.enabled }}
- --enable-ascend
{{- end }}
{{- if .Values.devices.iluvatar.enabled }}
- --enable-iluvatar
{{- end }}
{{- end -}}

{{/*
Resources for which kube-scheduler asks the extender: every name in the device configuration, and what customresources
add. It leaves all of them to the extender, except the amounts that a family's plug-in publishes on the node: the
kubelet counts those too, and would refuse a pod that nobody had counted before.
*/}}
{{- define "hami.managedResources" -}}
{{- $ignored := dict -}}
{{- range $family, $section := include "hami.deviceConfig" . | fromYaml -}}
{{- $entries := list $section -}}
{{- if kindIs "slice" $section -}}{{- $entries = $section -}}{{- end -}}
{{- if kindIs "map" $section -}}{{- if hasKey $section "configs" -}}{{- $entries = $section.configs -}}{{- end -}}{{- end -}}
{{- range $entry := $entries -}}
{{- if kindIs "map" $entry -}}
{{- range $key, $name := $entry -}}
{{- if and (regexMatch "(?i)^resource.*name" $key) (kindIs "string" $name) -}}
{{- if $name -}}
{{- $counted := and (has $family (list "cambricon" "mthreads")) (not (regexMatch "(?i)count" $key)) -}}
{{- $_ := set $ignored $name (not $counted) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.devices -}}
{{- range (.customresources | default list) -}}
{{- if not (hasKey $ignored .) -}}{{- $_ := set $ignored . true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $ignore := $ignored }}
- name: {{ $name }}
  ignoredByScheduler: {{ $ignore }}
{{- end }}
{{- end -}}
