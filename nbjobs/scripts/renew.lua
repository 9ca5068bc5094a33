#!lua flags=allow-oom
-- 5 owner  6 lease_ms
if gone then return answer('GONE') end
if not holds(ARGV[5]) then return answer('FENCED') end
lease(ARGV[6])
save()
return answer('OK')
