#!lua
-- 5 owner  6 attempt  7 lease_ms  8 d  9.. field value (what the caller takes the run for, unread)
local function go_on(code)
  local reply = answer(code)
  for _, field in ipairs({'step', 'cursor', 'done', 'total', 'steps', 'resumptions', 'view_id', 'last_id', 'args'}) do
    reply[#reply + 1] = run[field]
  end
  return reply
end
if gone then return answer('GONE') end
if holds(ARGV[5]) then return go_on('AGAIN') end
if #ARGV > 8 + 2 * 64 then return {'TOOBIG', 'fields'} end
for i = 9, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then return answer('OTHER') end
end
if larger(8, MAX_EVENT) then return larger(8, MAX_EVENT) end
if larger(5, MAX_NAME) then return larger(5, MAX_NAME) end
if END[run.state] then return answer('ENDED') end
if run.state == 'paused' then return answer('PAUSED') end
if run.owner ~= '' then return answer('HELD') end
if num(ARGV[6]) ~= num(run.attempt) + 1 then return answer('ATTEMPT') end
if num(run.at) > now then return answer('EARLY') end

put('owner', ARGV[5])
put('fence', int(math.max(num(run.fence) + 1, now)))
put('at', '0')
put('lease_until', int(now + num(ARGV[7])))
put('lease_ms', int(num(ARGV[7])))
add('attempt', 1)
if num(run.steps) > 0 or run.cursor ~= '' then add('resumptions', 1) end
entry('job.started', ARGV[8], 'running')
become('running', num(run.lease_until))
return go_on('OK')
