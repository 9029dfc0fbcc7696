{{- define "hami.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "hami.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "hami.scheduler" -}}{{ include "hami.fullname" . }}-scheduler{{- end -}}
{{- define "hami.devicePlugin" -}}{{ include "hami.fullname" . }}-device-plugin{{- end -}}

{{/* Selectors are immutable: component, name and instance, nothing more, as in HAMi's chart. */}}
{{- define "hami.selector" -}}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "hami.labels" -}}
{{ include "hami.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hami.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- if and (eq .image.repository "projecthami/hami") (not .root.Values.image.allowForeign) -}}
{{- fail "an image value names projecthami/hami, which starts HAMi's programs; remove repository (and tag) from that image's values, or set image.allowForeign=true" -}}
{{- end -}}
{{- printf "%s/%s:%s" $registry .image.repository (default (default (printf "v%s" .root.Chart.AppVersion) .root.Values.global.imageTag) .image.tag) -}}
{{- end -}}

{{- define "hami.kubeSchedulerImage" -}}
{{- $image := .Values.scheduler.kubeScheduler.image -}}
{{- $registry := default $image.registry .Values.global.imageRegistry -}}
{{- $repository := default (ternary "kube-scheduler" "google_containers/kube-scheduler" (eq $registry "registry.k8s.io")) $image.repository -}}
{{- $version := regexFind "^v[0-9]+\\.[0-9]+\\.[0-9]+" .Capabilities.KubeVersion.Version -}}
{{- printf "%s/%s:%s" $registry $repository (default $version $image.tag) -}}
{{- end -}}

{{- define "hami.pullSecrets" -}}
{{- $names := list -}}
{{- range concat .root.Values.global.imagePullSecrets .image.pullSecrets -}}
{{- $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) -}}
{{- end -}}
{{- range uniq $names }}
- name: {{ . }}
{{- end }}
{{- end -}}

{{- define "hami.hookPath" -}}
{{- $path := printf "%s/vgpu" (trimSuffix "/" .Values.global.gpuHookPath) -}}
{{- if and .Values.devicePlugin.libPath (ne .Values.devicePlugin.libPath $path) -}}
{{- fail (printf "devicePlugin.libPath is %s, but containers preload from %s (global.gpuHookPath): leave libPath empty or make both agree" .Values.devicePlugin.libPath $path) -}}
{{- end -}}
{{- if and .Values.devicePlugin.monitor.ctrPath (ne .Values.devicePlugin.monitor.ctrPath (printf "%s/containers" $path)) -}}
{{- fail (printf "devicePlugin.monitor.ctrPath is %s, but containers write below %s/containers (global.gpuHookPath): leave ctrPath empty or make both agree" .Values.devicePlugin.monitor.ctrPath $path) -}}
{{- end -}}
{{- $path -}}
{{- end -}}

{{- define "hami.deviceConfig" -}}
{{- $content := index .Values "device-config" "content" -}}
{{- $file := .Files.Get "files/device-config.yaml" -}}
{{- if $content -}}
{{ $content }}
{{- else if $file -}}
{{ $file }}
{{- else -}}
nvidia:
  resourceCountName: {{ .Values.resourceName }}
  resourceMemoryName: {{ .Values.resourceMem }}
  resourceMemoryPercentageName: {{ .Values.resourceMemPercentage }}
  resourceCoreName: {{ .Values.resourceCores }}
  resourcePriorityName: {{ .Values.resourcePriority }}
  overwriteEnv: {{ eq (toString .Values.scheduler.overwriteEnv) "true" }}
  defaultMemory: {{ .Values.devices.nvidia.defaultMemory }}
  defaultCores: {{ .Values.devices.nvidia.defaultCores }}
  defaultGPUNum: {{ .Values.devices.nvidia.defaultGPUNum }}
  memoryFactor: {{ .Values.devices.nvidia.memoryFactor }}
  deviceSplitCount: {{ .Values.devicePlugin.deviceSplitCount }}
  deviceMemoryScaling: {{ .Values.devicePlugin.deviceMemoryScaling }}
  deviceCoreScaling: {{ .Values.devicePlugin.deviceCoreScaling }}
  preConfiguredDeviceMemory: {{ .Values.devicePlugin.preConfiguredDeviceMemory }}
  enableNumaTopology: {{ .Values.devicePlugin.enableNumaTopology }}
  gpuCorePolicy: {{ ternary "disable" .Values.devices.nvidia.gpuCorePolicy (eq (toString .Values.devicePlugin.disablecorelimit) "true") }}
  libCudaLogLevel: {{ .Values.devices.nvidia.libCudaLogLevel | quote }}
  {{- with .Values.devices.nvidia.memoryAccounting }}
  memoryAccounting: {{ . }}
  {{- end }}
  runtimeClassName: {{ .Values.devicePlugin.runtimeClassName | quote }}
{{- include "hami.families" . }}
{{- end -}}
{{- end -}}
